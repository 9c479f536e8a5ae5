//!include grid fours map lane rng step
// known = 0 where one of the sample's shapes (see missing_shapes.wgsl) covers the pixel, else 1. A
//   line covers the pixels whose centres are at most its radius away from it.
// Layouts: known (N,H,W,C), shapes (N, 64, 8).
// Invocation: four consecutive elements. Elements past the end fall in the buffer's padding.
// Grid: ceil(len / 4) invocations.
// Twin: MissingPixels in src/ops/missing/cpu.rs.
struct Params {
    vectors: u32,
    n: u32,
    c: u32,
    w: u32,
    area: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> shapes: array<u32>;
@group(0) @binding(2) var<storage, read_write> known: array<Map4>;

// Whether the line from a to b covers a pixel. Ends and radius are in half pixels.
fn covers_line(a: vec2<i32>, b: vec2<i32>, radius: i32, pixel: vec2<i32>) -> bool {
    let centre = 2 * pixel + 1;
    let low = min(a, b) - radius;
    let high = max(a, b) + radius;
    if any(centre < low) || any(centre > high) {
        return false;
    }
    let d = b - a;
    let e = centre - a;
    let along = d.x * e.x + d.y * e.y;
    let length2 = d.x * d.x + d.y * d.y;
    if along <= 0 {
        return e.x * e.x + e.y * e.y <= radius * radius;
    }
    if along >= length2 {
        let f = centre - b;
        return f.x * f.x + f.y * f.y <= radius * radius;
    }
    let across = d.x * e.y - d.y * e.x;
    // The distance from the line is |across| / sqrt(length2). All factors are integers below 2^24,
    // hence exact in f32. Their products may exceed the range of i32.
    return f32(across) * f32(across) <= f32(radius * radius) * f32(length2);
}

// Whether the shape whose record begins at word `at` covers a pixel.
fn covers(at: u32, sample: u32, pixel: vec2<i32>) -> bool {
    let place = vec4<i32>(
        bitcast<i32>(shapes[at + 1u]),
        bitcast<i32>(shapes[at + 2u]),
        bitcast<i32>(shapes[at + 3u]),
        bitcast<i32>(shapes[at + 4u]),
    );
    switch shapes[at] {
        case 1u: {
            let index = sample * p.area + u32(pixel.x) * p.w + u32(pixel.y);
            // The stream number is "pixs" in ASCII.
            let word = random_word(index, step.step, 0x70697873u, step.seed_lo, step.seed_hi);
            return (word >> 16u) < u32(place.x);
        }
        case 2u: {
            return all(pixel >= place.xy) && all(pixel < place.zw);
        }
        case 3u: {
            return covers_line(place.xy, place.zw, i32(shapes[at + 5u]), pixel);
        }
        default: {
            let dot = place.z;
            let off = pixel - place.xy;
            if any(off < vec2<i32>(0)) || off.x >= 7 * dot || off.y >= 5 * dot {
                return false;
            }
            let bit = u32(5 * (off.x / dot) + off.y / dot);
            let word = select(u32(place.w), shapes[at + 5u], bit >= 32u);
            return ((word >> (bit % 32u)) & 1u) == 1u;
        }
    }
}

// 0 if one of the 64 shapes of sample n covers pixel hw, else 1. A record of 0 ends the list.
fn is_known(n: u32, hw: u32) -> f32 {
    let pixel = vec2<i32>(i32(hw / p.w), i32(hw % p.w));
    for (var shape = 64u * n; shape < 64u * n + 64u; shape++) {
        if shapes[8u * shape] == 0u {
            break;
        }
        if covers(8u * shape, step.first_sample + n, pixel) {
            return 0.0;
        }
    }
    return 1.0;
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_invocation(group, groups, local, 64u);
    if i >= p.vectors {
        return;
    }
    var values: vec4<f32>;
    for (var lane = 0u; lane < 4u; lane++) {
        let pixel = (4u * i + lane) / p.c;
        // The minimum is for lanes past the end, which belong to no sample.
        let value = is_known(min(pixel / p.area, p.n - 1u), pixel % p.area);
        values = select(values, vec4<f32>(value), is_lane(lane));
    }
    known[i] = to_map4(values);
}
