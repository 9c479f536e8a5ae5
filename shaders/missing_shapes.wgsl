//!include rng step glyphs grid
// The shapes that are missing in each sample, records of eight words: what it is (0: nothing, and
// nothing follows; 1: single pixels; 2: a rectangle; 3: a line; 4: a letter), then
//   1: the share of the pixels, in units of 2^-16 2: top, left, bottom, right, the last two
//   outside; pixels 3: the ends y, x, y, x and the radius; half pixels 4: top, left, the side of a
//   dot in pixels, the dots (common/glyphs.wgsl) One invocation: one record. Grid: 64 N
//   invocations. Twin: MissingPixels in src/reference/missing.rs.
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
@group(0) @binding(2) var<uniform> step: Step;

fn words_of(shape: u32) -> vec4<u32> {
    return random_words(shape, step.step, 0x73686170u, step.seed_lo, step.seed_hi);
}

// The place of the set bit of `kinds` that a word chooses.
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
    let choice = random_words(sample, step.step, 0x6d61736bu, step.seed_lo, step.seed_hi);
    let kind = kind_of(choice.x);
    let share = p.low + random_below(choice.y, p.span);
    let shorter = min(min(p.h, p.w), 2048u);
    var what = 0u;
    var place = vec4<i32>(0);
    var more = vec2<u32>(0u);
    let density = vec4<u32>(0u, p.blocks, p.strokes, p.text)[kind];
    let word = words_of(64u * sample + number);
    if kind == 0u {
        if number == 0u {
            what = 1u;
            place.x = i32(share);
        }
    } else if ((share * density + 65535u) >> 16u) > number {
        if kind == 1u {
            what = 2u;
            let limit = max(shorter / 4u, 2u);
            let side = 2 + vec2<i32>(below(word.x, limit - 1u), below(word.y, limit - 1u));
            let reach = vec2<u32>(p.h, p.w) + vec2<u32>(side) - 1u;
            let corner = vec2<i32>(below(word.z, reach.x), below(word.w, reach.y)) - side + 1;
            place = vec4<i32>(corner, corner + side);
        } else if kind == 2u {
            what = 3u;
            let far = max(shorter / 3u, 2u);
            let first = 64u * sample + number / 4u * 4u;
            let begun = words_of(first);
            var start: vec2<i32>;
            var end = vec2<i32>(below(begun.x, 2u * p.h), below(begun.y, 2u * p.w));
            for (var line = 0u; line <= number % 4u; line++) {
                let turn = words_of(first + line).w;
                start = end;
                end = start + vec2<i32>(below(turn, 2u * far + 1u), below(turn << 16u, 2u * far + 1u)) - i32(far);
            }
            place = vec4<i32>(start, end);
            more.x = 1u + random_below(begun.z, max(shorter / 9u, 1u));
        } else {
            what = 4u;
            let line = words_of(64u * sample + number / 8u * 8u);
            let dot = 1 + below(line.x, max(shorter / 16u, 1u));
            let top = below(line.y, p.h + 7u * u32(dot)) - 7 * dot;
            let left = below(line.z, p.w) - i32(p.w / 2u) + i32(number % 8u) * 6 * dot;
            var glyphs = GLYPHS;
            let letter = glyphs[random_below(word.w, 27u)];
            place = vec4<i32>(top, left, dot, bitcast<i32>(letter.x));
            more.x = letter.y;
        }
    }
    let at = 8u * i;
    shapes[at] = what;
    shapes[at + 1u] = bitcast<u32>(place.x);
    shapes[at + 2u] = bitcast<u32>(place.y);
    shapes[at + 3u] = bitcast<u32>(place.z);
    shapes[at + 4u] = bitcast<u32>(place.w);
    shapes[at + 5u] = more.x;
    shapes[at + 6u] = more.y;
    shapes[at + 7u] = 0u;
}
