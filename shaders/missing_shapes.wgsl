//!include rng step glyphs grid
// Draws the shapes that mask pixels of each sample. A shape is a record of eight words. Word 0 is
//   its kind, the others describe it:
//   0  none, and no shape follows
//   1  single pixels: the share of missing pixels in units of 2^-16
//   2  rectangle: top, left, bottom, right in pixels, the last two exclusive
//   3  line: the ends y, x, y, x and the radius, in half pixels
//   4  letter: top, left, side of a dot in pixels, two words of dots (see common/glyphs.wgsl)
// A random word of the sample selects one kind of mask among the set bits of `kinds`: 0 single
//   pixels, 1 rectangles, 2 strokes, 3 text. `share`, from low to low + span - 1 in units of 2^-16,
//   is the share of pixels to cover; blocks, strokes and text are the numbers of shapes that stand
//   for a share of 1.
// Layouts: shapes (N, 64, 8).
// Invocation: one record.
// Grid: 64 N invocations.
// Twin: MissingPixels in src/ops/missing/cpu.rs.
struct Params {
    shapes: u32,
    h: u32,
    w: u32,
    kinds: u32,
    low: u32,
    span: u32,
    blocks: u32,
    strokes: u32,
    text: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> shapes: array<u32>;

// Four random words of a shape, numbered over all samples. The stream is "shap" in ASCII.
fn words_of(shape: u32) -> vec4<u32> {
    return random_words(shape, step.step, 0x73686170u, step.seed_lo, step.seed_hi);
}

// The index of the set bit of `kinds` that a random word selects.
fn kind_of(word: u32) -> u32 {
    var left = random_below(word, countOneBits(p.kinds));
    for (var kind = 0u; kind < 3u; kind++) {
        if ((p.kinds >> kind) & 1u) == 1u {
            if left == 0u {
                return kind;
            }
            left -= 1u;
        }
    }
    return 3u;
}

// A random integer from 0 to bound - 1.
fn below(word: u32, bound: u32) -> i32 {
    return i32(random_below(word, bound));
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_invocation(group, groups, local, 64u);
    if i >= p.shapes {
        return;
    }
    let sample = step.first_sample + i / 64u;
    let number = i % 64u;
    // The stream of a sample's choices is "mask" in ASCII.
    let choice = random_words(sample, step.step, 0x6d61736bu, step.seed_lo, step.seed_hi);
    let kind = kind_of(choice.x);
    let share = p.low + random_below(choice.y, p.span);
    // Sizes are relative to the shorter side. The limit of 2048 keeps the integers of covers_line
    // (missing_pixels.wgsl) below 2^24.
    let shorter = min(min(p.h, p.w), 2048u);
    var code = 0u;
    var place = vec4<i32>(0);
    var extra = vec2<u32>(0u);
    let density = vec4<u32>(0u, p.blocks, p.strokes, p.text)[kind];
    let word = words_of(64u * sample + number);
    if kind == 0u {
        if number == 0u {
            code = 1u;
            place.x = i32(share);
        }
    } else if ((share * density + 65535u) >> 16u) > number {
        if kind == 1u {
            code = 2u;
            let limit = max(shorter / 4u, 2u);
            let side = 2 + vec2<i32>(below(word.x, limit - 1u), below(word.y, limit - 1u));
            let reach = vec2<u32>(p.h, p.w) + vec2<u32>(side) - 1u;
            let corner = vec2<i32>(below(word.z, reach.x), below(word.w, reach.y)) - side + 1;
            place = vec4<i32>(corner, corner + side);
        } else if kind == 2u {
            code = 3u;
            // Four lines in a row form a chain. Each invocation follows its chain from the start.
            let max_offset = max(shorter / 3u, 2u);
            let first = 64u * sample + number / 4u * 4u;
            let chain_words = words_of(first);
            var start: vec2<i32>;
            var end = vec2<i32>(below(chain_words.x, 2u * p.h), below(chain_words.y, 2u * p.w));
            for (var line = 0u; line <= number % 4u; line++) {
                let turn = words_of(first + line).w;
                start = end;
                let offset = vec2<i32>(
                    below(turn, 2u * max_offset + 1u),
                    below(turn << 16u, 2u * max_offset + 1u),
                );
                end = start + offset - i32(max_offset);
            }
            place = vec4<i32>(start, end);
            extra.x = 1u + random_below(chain_words.z, max(shorter / 9u, 1u));
        } else {
            // Eight letters in a row form a line of text, six dots apart.
            code = 4u;
            let line = words_of(64u * sample + number / 8u * 8u);
            let dot = 1 + below(line.x, max(shorter / 16u, 1u));
            let top = below(line.y, p.h + 7u * u32(dot)) - 7 * dot;
            let left = below(line.z, p.w) - i32(p.w / 2u) + i32(number % 8u) * 6 * dot;
            var glyphs = GLYPHS;
            let letter = glyphs[random_below(word.w, 27u)];
            place = vec4<i32>(top, left, dot, bitcast<i32>(letter.x));
            extra.x = letter.y;
        }
    }
    let at = 8u * i;
    shapes[at] = code;
    shapes[at + 1u] = bitcast<u32>(place.x);
    shapes[at + 2u] = bitcast<u32>(place.y);
    shapes[at + 3u] = bitcast<u32>(place.z);
    shapes[at + 4u] = bitcast<u32>(place.w);
    shapes[at + 5u] = extra.x;
    shapes[at + 6u] = extra.y;
    shapes[at + 7u] = 0u;
}
