declare module "virtual:docs" {
  /** Where each program stands and what it calls, and what runs it. */
  export const blocks: readonly (readonly [where: string, run: () => Promise<unknown>])[];
}
