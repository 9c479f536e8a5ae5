//!include grid fours nan map lane pool2d lanes activation
// dx[n,h,w,c] = sum of dy over the windows whose switch is h * W + w.
// With ACTIVATION the layer below ends in that function f, and dx is the gradient before f: dy is
//   multiplied by f', computed from the pooled output y, which is f's output at the switch.
// Layouts: dx (N,H,W,C); dy, switches and y (N,P,Q,C).
// Invocation: four consecutive elements of dx. With VEC they are four channels of one pixel.
//   Without VEC each is computed on its own, with the same value in every lane. Elements past the
//   end fall in the buffer's padding.
// Grid: ceil(len / 4) invocations, len the number of elements of dx.
// Precondition: with ACTIVATION = 0 `y` is not read, and any map can be bound.
// Twin: MaxPool2dBwd in src/ops/pool2d/cpu.rs.

// f: a code of common/activation.wgsl from 0 to 6, whose slope follows from the output.
override ACTIVATION: u32 = 0u;
// Its slope or alpha.
override PARAMETER: f32 = 0.0;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<Map4>;
@group(0) @binding(2) var<storage, read> switches: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> y: array<Map4>;
@group(0) @binding(4) var<storage, read_write> dx: array<Map4>;

// dy, or the gradient before the activation.
fn fetch_dy(i: u32) -> vec4<f32> {
    var fetched = map4(dy[i / 4u]);
    if ACTIVATION != 0u {
        fetched *= activation_slope_output4(ACTIVATION, PARAMETER, map4(y[i / 4u]));
    }
    return lanes(fetched, i);
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
    var sum = vec4<f32>(0.0);
    for (var wp = p0; wp < p1; wp++) {
        for (var wq = q0; wq < q1; wq++) {
            let at = ((n * p.p + wp) * p.q + wq) * p.c + c;
            let selected = fetch_switches(at) == vec4<u32>(h * p.w + w);
            sum += select(vec4<f32>(0.0), fetch_dy(at), selected);
        }
    }
    return sum;
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
        dx[i] = to_map4(gather(i * 4u));
    } else {
        var result: vec4<f32>;
        for (var lane = 0u; lane < 4u; lane++) {
            result = select(result, gather(i * 4u + lane), is_lane(lane));
        }
        dx[i] = to_map4(result);
    }
}
