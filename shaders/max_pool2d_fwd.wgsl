//!include grid fours nan map lane pool2d lanes largest
// y[n,p,q,c] = max of x over the window (padding is -inf); switches[n,p,q,c] = h * W + w of the
//   maximum. Ties go to the first element in row-major order. The first NaN wins over numbers.
// Layouts: x (N,H,W,C), y and switches (N,P,Q,C).
// Invocation: four consecutive elements of y. With VEC they are four channels of one pixel. Without
//   VEC each is computed on its own, with the same value in every lane. Elements past the end fall
//   in the buffer's padding.
// Grid: ceil(len / 4) invocations, len the number of elements of y.
// Twin: MaxPool2dFwd in src/ops/pool2d/cpu.rs.

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read_write> y: array<Map4>;
@group(0) @binding(3) var<storage, read_write> switches: array<vec4<u32>>;

fn fetch_x(i: u32) -> vec4<f32> {
    return lanes(map4(x[i / 4u]), i);
}

fn pool(i: u32) -> Largest {
    let c = i % p.c;
    let q = i / p.c % p.q;
    let row = i / p.c / p.q;
    let n = row / p.p;
    // The window without its padding. It is never empty: padding is at most half of the kernel.
    let top = row % p.p * p.stride_h;
    let left = q * p.stride_w;
    let h0 = max(top, p.pad_h) - p.pad_h;
    let w0 = max(left, p.pad_w) - p.pad_w;
    let h1 = min(top + p.r - p.pad_h, p.h);
    let w1 = min(left + p.s - p.pad_w, p.w);
    var best = Largest(fetch_x(((n * p.h + h0) * p.w + w0) * p.c + c), vec4<u32>(h0 * p.w + w0));
    for (var h = h0; h < h1; h++) {
        for (var w = w0; w < w1; w++) {
            best = larger(best, fetch_x(((n * p.h + h) * p.w + w) * p.c + c), h * p.w + w);
        }
    }
    return best;
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
    if VEC {
        let best = pool(i * 4u);
        y[i] = to_map4(best.value);
        switches[i] = best.at;
    } else {
        var result: Largest;
        for (var lane = 0u; lane < 4u; lane++) {
            let best = pool(i * 4u + lane);
            result.value = select(result.value, best.value, is_lane(lane));
            result.at = select(result.at, best.at, is_lane(lane));
        }
        y[i] = to_map4(result.value);
        switches[i] = result.at;
    }
}
