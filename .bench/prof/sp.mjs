import { sparse } from "./bench/uffd-sparse.mjs"; console.log(await sparse()); process.exit(0);
