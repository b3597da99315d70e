// Counts the places where a byte string occurs in a text of any size, and the lines of each piece of it.
//
//   printf %s 'needle' > needle.bin
//   pagemirror run examples/grep.wgsl --map text=FILE --map needle=needle.bin --map total=new:4 --map pieces=new:SIZE \
//     --set text=@text --set bytes=#text --set needle=@needle --set needle_bytes=#needle --set total=@total \
//     --set pieces=@pieces --workgroups COUNT --out total=total.bin --out pieces=pieces.bin
//
// total.bin then holds the number of matches, a little-endian u32; matches may overlap. pieces.bin has a word for each
// piece of 256 bytes: the ends of lines in it, and 65536 times the matches that begin in it. COUNT is a workgroup for each
// 16 KiB of the file, and SIZE 256 bytes a workgroup.

struct Params {
  text: u32,         // svm address
  bytes: u32,        // length of the text
  needle: u32,       // svm address, at the start of a page
  needle_bytes: u32, // at least 1, at most 4096
  total: u32,        // svm address
  pieces: u32,       // svm address
}

@group(0) @binding(0) var<uniform> params: Params;

const PIECE_WORDS: u32 = 64;
const NEWLINES: u32 = 0x0a0a0a0a;

// 0x80 in each byte that is zero.
fn zero_bytes(word: u32) -> u32 {
  return ~(((word & 0x7f7f7f7f) + 0x7f7f7f7f) | word | 0x7f7f7f7f);
}

fn byte_of(word: u32, i: u32) -> u32 {
  return (word >> (8 * (i % 4))) & 0xff;
}

// The first byte is known to fit.
fn matches_at(start: u32, needle: PmSpan) -> bool {
  if (start + params.needle_bytes > params.bytes) {
    return false;
  }
  for (var i = 1u; i < params.needle_bytes; i++) {
    let here = pm_load_u32(params.text + (start + i) / 4);
    if (byte_of(here, start + i) != byte_of(pm_span_load_u32(needle, i / 4), i)) {
      return false;
    }
  }
  return true;
}

@compute @workgroup_size(64)
fn grep(@builtin(global_invocation_id) id: vec3u) {
  let first = id.x * PIECE_WORDS;
  let end = min(first + PIECE_WORDS, (params.bytes + 3) / 4);
  if (first >= end) {
    return;
  }
  let needle = pm_span(params.needle, (params.needle_bytes + 3) / 4);
  let first_bytes = (pm_span_load_u32(needle, 0) & 0xff) * 0x01010101;
  // A piece never crosses a page, since it is as long as a part of one.
  let piece = pm_span(params.text + first, end - first);
  var lines = 0u;
  var matches = 0u;
  for (var word = first; word < end; word++) {
    let here = pm_span_load_u32(piece, word - first);
    lines += countOneBits(zero_bytes(here ^ NEWLINES));
    var candidates = zero_bytes(here ^ first_bytes);
    while (candidates != 0) {
      let at = firstTrailingBit(candidates);
      candidates &= candidates - 1;
      matches += u32(matches_at(word * 4 + at / 8, needle));
    }
  }
  pm_store_u32(params.pieces + id.x, lines | (matches << 16));
  if (matches > 0) {
    pm_atomic_add_u32(params.total, matches);
  }
}
