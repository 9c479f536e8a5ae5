//!include grid fours map
// y[n, h * scale + i, w * scale + j, c] = x[n, h, w, (c * scale + i) * scale + j].
// Layouts: x (N, H, W, C * scale * scale), y (N, H * scale, W * scale, C). p.w is the width of x,
//   p.c the number of channels of y.
// Invocation: four consecutive elements of y. Only the first is located by divisions, which cost
//   more than the copy. Elements past the end fall in the buffer's padding.
// Grid: ceil(len / 4) invocations, len the number of elements of y.
// Twin: PixelShuffleFwd in src/ops/pixel_shuffle.rs.

struct Params {
    vectors: u32,
    c: u32,
    w: u32,
    scale: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map>;
@group(0) @binding(2) var<storage, read_write> y: array<Map4>;

// The indices of an element of y, from the innermost to the outermost.
struct Place {
    c: u32,
    j: u32,
    w: u32,
    i: u32,
    // n * H + h: samples need no separate index, as H * scale is a multiple of scale.
    row: u32,
}

fn place_of(element: u32) -> Place {
    let pixel = element / p.c;
    let column = pixel % (p.w * p.scale);
    let y_row = pixel / (p.w * p.scale);
    return Place(
        element % p.c,
        column % p.scale,
        column / p.scale,
        y_row % p.scale,
        y_row / p.scale,
    );
}

// The place of the next element.
fn after(place: Place) -> Place {
    var next = place;
    next.c++;
    if next.c == p.c {
        next.c = 0u;
        next.j++;
        if next.j == p.scale {
            next.j = 0u;
            next.w++;
            if next.w == p.w {
                next.w = 0u;
                next.i++;
                if next.i == p.scale {
                    next.i = 0u;
                    next.row++;
                }
            }
        }
    }
    return next;
}

fn value(at: Place) -> f32 {
    let channel = (at.c * p.scale + at.i) * p.scale + at.j;
    return f32(x[(at.row * p.w + at.w) * (p.c * p.scale * p.scale) + channel]);
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
    y[i] = to_map4(vec4<f32>(value(first), value(second), value(third), value(fourth)));
}
