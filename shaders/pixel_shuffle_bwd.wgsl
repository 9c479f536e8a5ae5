//!include grid fours map
// dx[n, h, w, (c * scale + i) * scale + j] = dy[n, h * scale + i, w * scale + j, c].
// Layouts: dx (N, H, W, C * scale * scale), dy (N, H * scale, W * scale, C). p.w is the width of
//   dx, p.c the number of channels of dy.
// Invocation: four consecutive elements of dx. Only the first is located by divisions, which cost
//   more than the copy. Elements past the end fall in the buffer's padding.
// Grid: ceil(len / 4) invocations, len the number of elements of dx.
// Twin: PixelShuffleBwd in src/ops/pixel_shuffle.rs.

struct Params {
    vectors: u32,
    c: u32,
    w: u32,
    scale: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<Map>;
@group(0) @binding(2) var<storage, read_write> dx: array<Map4>;

// The indices of an element of dx, from the innermost to the outermost.
struct Place {
    j: u32,
    i: u32,
    c: u32,
    w: u32,
    // n * H + h: samples need no separate index, as dy has scale rows for each row of dx.
    row: u32,
}

fn place_of(element: u32) -> Place {
    let i = element / p.scale;
    let c = i / p.scale;
    let pixel = c / p.c;
    return Place(element % p.scale, i % p.scale, c % p.c, pixel % p.w, pixel / p.w);
}

// The place of the next element.
fn after(place: Place) -> Place {
    var next = place;
    next.j++;
    if next.j == p.scale {
        next.j = 0u;
        next.i++;
        if next.i == p.scale {
            next.i = 0u;
            next.c++;
            if next.c == p.c {
                next.c = 0u;
                next.w++;
                if next.w == p.w {
                    next.w = 0u;
                    next.row++;
                }
            }
        }
    }
    return next;
}

fn value(at: Place) -> f32 {
    let row = at.row * p.scale + at.i;
    let column = at.w * p.scale + at.j;
    return f32(dy[(row * (p.w * p.scale) + column) * p.c + at.c]);
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
    let first = place_of(i * 4u);
    let second = after(first);
    let third = after(second);
    let fourth = after(third);
    dx[i] = to_map4(vec4<f32>(value(first), value(second), value(third), value(fourth)));
}
