/** A canvas that fills its box, sharp on every screen, drawn at most once a frame. */
export class Surface {
  readonly canvas: HTMLCanvasElement;
  readonly #draw: (context: CanvasRenderingContext2D, width: number, height: number) => void;
  readonly #observer: ResizeObserver;
  #asked = false;

  constructor(
    canvas: HTMLCanvasElement,
    draw: (context: CanvasRenderingContext2D, width: number, height: number) => void,
  ) {
    this.canvas = canvas;
    this.#draw = draw;
    this.#observer = new ResizeObserver(() => this.redraw());
    this.#observer.observe(canvas);
  }

  redraw(): void {
    if (!this.#asked) {
      this.#asked = true;
      requestAnimationFrame(() => {
        this.#asked = false;
        this.#paint();
      });
    }
  }

  #paint(): void {
    const { canvas } = this;
    const [width, height, scale] = [canvas.clientWidth, canvas.clientHeight, devicePixelRatio];
    const context = canvas.getContext("2d");
    if (context === null || width === 0) {
      return;
    }
    const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
    if (canvas.width !== w || canvas.height !== h) {
      canvas.width = w;
      canvas.height = h;
    }
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    this.#draw(context, width, height);
  }

  end(): void {
    this.#observer.disconnect();
  }
}
