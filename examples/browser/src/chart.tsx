/** 256 counts as bars. */
import { countText } from "../../../inspector/src/text.ts";

const HEIGHT = 96;

export interface ChartProps {
  readonly counts: Uint32Array;
  readonly label: string;
  /** What one bar stands for. */
  nameOf(bar: number): string;
}

export function Chart({ counts, label, nameOf }: ChartProps) {
  const most = counts.reduce((a, b) => Math.max(a, b), 1);
  const bars = Array.from(counts, (count, bar) => ({ bar, count, height: Math.sqrt(count / most) * HEIGHT }));
  return (
    <figure>
      <svg viewBox={`0 0 256 ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={label}>
        {bars.map(({ bar, count, height }) => (
          <rect key={bar} x={bar} y={HEIGHT - height} width={0.86} height={height}>
            <title>{`${nameOf(bar)}: ${countText(count)}`}</title>
          </rect>
        ))}
      </svg>
      <figcaption class="ends">
        <span>{nameOf(0)}</span>
        <span class="faint">{label}</span>
        <span>{nameOf(255)}</span>
      </figcaption>
    </figure>
  );
}
