//!include grid fours map lane pool2d lanes
// y[n, switches[n,p,q,c], c] = x[n,p,q,c], else 0. If several windows share a switch, the last in
//   row-major order wins.
// Layouts: x and switches (N,P,Q,C), y (N,H,W,C). p.h and p.w are the sides of the output, p.p and
//   p.q those of the input: they describe the pooling that is undone.
// Invocation: four consecutive elements of y. With VEC they are four channels of one pixel. Without
//   VEC each is computed on its own, with the same value in every lane. Elements past the end fall
//   in the buffer's padding.
// Grid: ceil(len / 4) invocations, len the number of elements of y.
// Precondition: every switch lies in its own window.
// Twin: MaxUnpool2dFwd in src/ops/unpool2d/cpu.rs.

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read> switches: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> y: array<Map4>;

fn fetch_x(i: u32) -> vec4<f32> {
    return lanes(map4(x[i / 4u]), i);
}

fn fetch_switches(i: u32) -> vec4<u32> {
    if VEC {
        return switches[i / 4u];
    }
    return vec4<u32>(switches[i / 4u][i % 4u]);
}

fn gather(i: u32) -> vec4<f32> {
    let c = i % p.c;
    let w = i / p.c % p.w;
    let row = i / p.c / p.w;
    let h = row % p.h;
    let n = row / p.h;
    // The windows p0 <= p < p1, q0 <= q < q1 contain the pixel.
    let bottom = h + p.pad_h;
    let right = w + p.pad_w;
    let p0 = select((bottom - p.r) / p.stride_h + 1u, 0u, bottom < p.r);
    let q0 = select((right - p.s) / p.stride_w + 1u, 0u, right < p.s);
    let p1 = min(bottom / p.stride_h + 1u, p.p);
    let q1 = min(right / p.stride_w + 1u, p.q);
    var last = vec4<f32>(0.0);
    for (var wp = p0; wp < p1; wp++) {
        for (var wq = q0; wq < q1; wq++) {
            let at = ((n * p.p + wp) * p.q + wq) * p.c + c;
            last = select(last, fetch_x(at), fetch_switches(at) == vec4<u32>(h * p.w + w));
        }
    }
    return last;
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
        y[i] = to_map4(gather(i * 4u));
    } else {
        var result: vec4<f32>;
        for (var lane = 0u; lane < 4u; lane++) {
            result = select(result, gather(i * 4u + lane), is_lane(lane));
        }
        y[i] = to_map4(result);
    }
}
