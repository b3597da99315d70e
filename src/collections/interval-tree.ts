/** Intervals that may overlap, found by what they overlap with. */
import { invariant } from "../base/index.ts";

/** An interval's place in its tree: the handle that removes it. */
export interface IntervalNode<T> {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
  readonly value: T;
}

/**
 * Fields are mutable here only: outside, a node is an {@link IntervalNode}.
 * `maxEnd` is the highest `end` in the subtree; it lets a search skip subtrees that end too early.
 */
class Node<T> implements IntervalNode<T> {
  readonly start: number;
  readonly end: number;
  readonly value: T;
  readonly priority: number;
  maxEnd: number;
  parent: Node<T> | undefined = undefined;
  left: Node<T> | undefined = undefined;
  right: Node<T> | undefined = undefined;
  tree: IntervalTree<T> | undefined;

  constructor(start: number, end: number, value: T, priority: number, tree: IntervalTree<T>) {
    this.start = start;
    this.end = end;
    this.value = value;
    this.priority = priority;
    this.maxEnd = end;
    this.tree = tree;
  }
}

/**
 * A set of half-open intervals over numbers, duplicates allowed. Insert and remove are O(log n); a search for overlaps
 * is O(log n + found) and allocates nothing.
 *
 * A treap: a search tree by start that is a heap by a pseudo-random priority, which keeps it balanced with two rotations
 * to know instead of a table of colour cases.
 * @linux include/linux/interval_tree_generic.h INTERVAL_TREE_DEFINE
 */
export class IntervalTree<T> {
  #root: Node<T> | undefined;
  #size = 0;
  #seed = 0x9e3779b9;
  #visiting = 0;

  get size(): number {
    return this.#size;
  }

  /**
   * Adds `[start, end)`. Returns the handle for {@link remove}.
   * @throws BugError I-COLL-1 during a {@link forEachOverlap}; I-COLL-2 when the interval is empty.
   */
  insert(start: number, end: number, value: T): IntervalNode<T> {
    this.#assertIdle("insert");
    invariant(start < end, "I-COLL-2", () => `an interval from ${start} to ${end} is empty`);
    const node = new Node(start, end, value, this.#nextPriority(), this);
    let parent: Node<T> | undefined;
    for (let at = this.#root; at !== undefined; at = start < at.start ? at.left : at.right) {
      at.maxEnd = Math.max(at.maxEnd, end);
      parent = at;
    }
    node.parent = parent;
    if (parent === undefined) {
      this.#root = node;
    } else if (start < parent.start) {
      parent.left = node;
    } else {
      parent.right = node;
    }
    while (node.parent !== undefined && node.parent.priority < node.priority) {
      this.#rotateUp(node);
    }
    this.#size++;
    return node;
  }

  /**
   * Removes an interval. False when it was removed before.
   * @throws BugError I-COLL-1 during a {@link forEachOverlap}; I-COLL-2 when the handle is of another tree.
   */
  remove(handle: IntervalNode<T>): boolean {
    this.#assertIdle("remove");
    const node = handle as Node<T>;
    if (node.tree === undefined) {
      return false;
    }
    invariant(node.tree === this, "I-COLL-2", () => "the interval belongs to another tree");
    for (let child = heavierChild(node); child !== undefined; child = heavierChild(node)) {
      this.#rotateUp(child);
    }
    const { parent } = node;
    if (parent === undefined) {
      this.#root = undefined;
    } else if (parent.left === node) {
      parent.left = undefined;
    } else {
      parent.right = undefined;
    }
    for (let at = parent; at !== undefined; at = at.parent) {
      updateMaxEnd(at);
    }
    node.parent = undefined;
    node.tree = undefined;
    this.#size--;
    return true;
  }

  /** The value of the one interval that is there; undefined when there is none, or more. */
  get only(): T | undefined {
    return this.#size === 1 ? this.#root?.value : undefined;
  }

  /** Calls `visit` for each interval that overlaps `[start, end)`, by rising start. It must not change the tree. */
  forEachOverlap(start: number, end: number, visit: (value: T, start: number, end: number) => void): void {
    this.#visiting++;
    try {
      visitOverlaps(this.#root, start, end, visit);
    } finally {
      this.#visiting--;
    }
  }

  /** All values, by rising start. */
  *[Symbol.iterator](): IterableIterator<T> {
    yield* values(this.#root);
  }

  #assertIdle(op: string): void {
    invariant(
      this.#visiting === 0,
      "I-COLL-1",
      () => `${op} while the tree is being searched: collect first, then act`,
    );
  }

  /** xorshift32: the same inputs give the same tree in every run. */
  #nextPriority(): number {
    let x = this.#seed;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#seed = x;
    return x;
  }

  /** Puts the node in its parent's place and the parent under it; order by start is unchanged. */
  #rotateUp(node: Node<T>): void {
    const parent = node.parent as Node<T>;
    const grand = parent.parent;
    if (parent.left === node) {
      parent.left = node.right;
      if (node.right !== undefined) {
        node.right.parent = parent;
      }
      node.right = parent;
    } else {
      parent.right = node.left;
      if (node.left !== undefined) {
        node.left.parent = parent;
      }
      node.left = parent;
    }
    parent.parent = node;
    node.parent = grand;
    if (grand === undefined) {
      this.#root = node;
    } else if (grand.left === parent) {
      grand.left = node;
    } else {
      grand.right = node;
    }
    updateMaxEnd(parent);
    updateMaxEnd(node);
  }
}

function heavierChild<T>(node: Node<T>): Node<T> | undefined {
  const { left, right } = node;
  if (left === undefined || right === undefined) {
    return left ?? right;
  }
  return left.priority > right.priority ? left : right;
}

function updateMaxEnd<T>(node: Node<T>): void {
  let max = node.end;
  if (node.left !== undefined && node.left.maxEnd > max) {
    max = node.left.maxEnd;
  }
  if (node.right !== undefined && node.right.maxEnd > max) {
    max = node.right.maxEnd;
  }
  node.maxEnd = max;
}

function visitOverlaps<T>(
  node: Node<T> | undefined,
  start: number,
  end: number,
  visit: (value: T, start: number, end: number) => void,
): void {
  if (node === undefined || node.maxEnd <= start) {
    return;
  }
  visitOverlaps(node.left, start, end, visit);
  if (node.start < end) {
    if (node.end > start) {
      visit(node.value, node.start, node.end);
    }
    visitOverlaps(node.right, start, end, visit);
  }
}

function* values<T>(node: Node<T> | undefined): IterableIterator<T> {
  if (node !== undefined) {
    yield* values(node.left);
    yield node.value;
    yield* values(node.right);
  }
}
