//!include grid fours nan map pool2d activation
// dx[n,h,w,c] = dy of the window that contains (h,w) if its switch is h * W + w, else 0:
//   max_pool2d_bwd for windows that do not overlap. Each window is read once; max_pool2d_bwd reads
//   it once for each of its pixels.
// With ACTIVATION the layer below ends in that function f, and dx is the gradient before f: dy is
//   multiplied by f', computed from the pooled output y.
// Layouts: dx (N,H,W,C); dy, switches and y (N,P,Q,C).
// Invocation: four channels of a cell of stride_h by stride_w pixels of dx. A cell contains one
//   window, or none at the lower and right edges.
// Grid: N * ceil(H / stride_h) * ceil(W / stride_w) * C/4 invocations, channels fastest.
// Preconditions: strides are at least as large as the kernel; no padding; C is a multiple of 4.
//   With ACTIVATION = 0 `y` is not read, and any map can be bound.
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
    let channels = p.c / 4u;
    let columns = (p.w + p.stride_w - 1u) / p.stride_w;
    let rows = (p.h + p.stride_h - 1u) / p.stride_h;
    let cell = i / channels;
    let q = cell % columns;
    let row = cell / columns % rows;
    let n = cell / columns / rows;
    let c = i % channels;
    var gradient = vec4<f32>(0.0);
    var at = vec4<u32>(0xffffffffu);
    if row < p.p && q < p.q {
        let window = ((n * p.p + row) * p.q + q) * channels + c;
        gradient = map4(dy[window]);
        if ACTIVATION != 0u {
            gradient *= activation_slope_output4(ACTIVATION, PARAMETER, map4(y[window]));
        }
        at = switches[window];
    }
    for (var h = row * p.stride_h; h < min((row + 1u) * p.stride_h, p.h); h++) {
        for (var w = q * p.stride_w; w < min((q + 1u) * p.stride_w, p.w); w++) {
            let value = select(vec4<f32>(0.0), gradient, at == vec4<u32>(h * p.w + w));
            dx[((n * p.h + h) * p.w + w) * channels + c] = to_map4(value);
        }
    }
}
