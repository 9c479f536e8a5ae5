//!include conv2d fours map gate activation grid
// y[n,p,q,k] = f(b[k] + sum over r,s,c of x[n, p*stride - pad + r*dilation, ..., c] * w[r,s,c,k]), without groups.
// x (N,H,W,C), w (R,S,C,K), b (K), y (N,P,Q,K). An implicit matrix product in registers: arithmetic per load is what counts.
// One invocation: 8 pixels (n,p,q) in a row of memory by 8 filters. Grid: ceil(N*P*Q / 8) * ceil(K / 8) invocations, filters fastest.
// `x4` and `w4` are `x` and `w` again, four at a time: VEC_C says that C, VEC_K that K is a multiple of 4; NARROW that K <= 4.
// Filters past K compute something that is not stored; their loads may pass the end of `w` and are then caught by WGSL's bounds rule.
// GATED: y = f'(from gate) * sum, `gate` being the output of f, as large as y.
// Without bias (`has_bias` = 0) any reals may be bound as `b`, without GATED any map as `gate`. Twin: Conv2dFwd in src/reference/conv2d.rs.

override ACTIVATION: u32 = 0u;
override GATED: bool = false;
override VEC_C: bool = false;
override VEC_K: bool = false;
override NARROW: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map>;
@group(0) @binding(2) var<storage, read> x4: array<Map4>;
@group(0) @binding(3) var<storage, read> w: array<f32>;
@group(0) @binding(4) var<storage, read> w4: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> b: array<f32>;
@group(0) @binding(6) var<storage, read> gate: array<Map4>;
@group(0) @binding(7) var<storage, read_write> y: array<Map>;

// Four pixels of y: their sample and the corner of their window in x. A pixel past the end lies outside every input.
struct Pixels {
    n: vec4<i32>,
    h: vec4<i32>,
    w: vec4<i32>,
}

fn locate(pixel: vec4<u32>) -> Pixels {
    let row = pixel / p.q;
    let h = vec4<i32>(row % p.p * p.stride_h) - i32(p.pad_h);
    let w = vec4<i32>(pixel % p.q * p.stride_w) - i32(p.pad_w);
    let inside = pixel < vec4<u32>(p.n * p.p * p.q);
    return Pixels(vec4<i32>(row / p.p), select(vec4<i32>(-0x40000000), h, inside), w);
}

// Number of the pixel of x under tap (r,s), or -1 in the padding.
fn under_tap(pixels: Pixels, r: u32, s: u32) -> vec4<i32> {
    let h = pixels.h + i32(r * p.dilation_h);
    let w = pixels.w + i32(s * p.dilation_w);
    let inside = (vec4<u32>(h) < vec4<u32>(p.h)) & (vec4<u32>(w) < vec4<u32>(p.w));
    return select(vec4<i32>(-1), (pixels.n * i32(p.h) + h) * i32(p.w) + w, inside);
}

// Outside the map pixel 0 is read and dropped: cheaper than a branch.
fn load_x4(pixel: i32, c: u32) -> vec4<f32> {
    return select(map4(x4[(u32(max(pixel, 0)) * p.c + c) / 4u]), vec4<f32>(0.0), pixel < 0);
}

fn load_x(pixel: i32, c: u32) -> f32 {
    return select(f32(x[u32(max(pixel, 0)) * p.c + c]), 0.0, pixel < 0);
}

fn load_w(i: u32) -> vec4<f32> {
    if VEC_K {
        return w4[i / 4u];
    }
    return vec4<f32>(w[i], w[i + 1u], w[i + 2u], w[i + 3u]);
}

// The weights of four channels, one column each.
fn load_w4(i: u32) -> mat4x4<f32> {
    return mat4x4<f32>(load_w(i), load_w(i + p.k), load_w(i + 2u * p.k), load_w(i + 3u * p.k));
}

fn load_b(k: u32) -> vec4<f32> {
    if p.has_bias == 0u {
        return vec4<f32>(0.0);
    }
    return vec4<f32>(b[k], b[k + 1u], b[k + 2u], b[k + 3u]);
}

// What is stored at i: f of the sum, or the sum by the slope of the f whose output lies there.
fn finished(i: u32, sum: vec4<f32>) -> vec4<f32> {
    if GATED {
        return sum * activation_slope_output4(ACTIVATION, p.parameter, gate4_at(i, VEC_K));
    }
    return activate4(ACTIVATION, p.parameter, sum);
}

fn store(pixel: u32, k: u32, value: vec4<f32>) {
    if pixel >= p.n * p.p * p.q || k >= p.k {
        return;
    }
    let i = pixel * p.k + k;
    let v = finished(i, value);
    y[i] = Map(v.x);
    if VEC_K || k + 1u < p.k {
        y[i + 1u] = Map(v.y);
    }
    if VEC_K || k + 2u < p.k {
        y[i + 2u] = Map(v.z);
    }
    if VEC_K || k + 3u < p.k {
        y[i + 3u] = Map(v.w);
    }
}

// a bᵀ
fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a * b.x, a * b.y, a * b.z, a * b.w);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_invocation(group, groups, local, 64u);
    let blocks = (p.k + 7u) / 8u;
    let k = i % blocks * 8u;
    let first = i / blocks * 8u;
    if first >= p.n * p.p * p.q {
        return;
    }
    let pixels0 = locate(first + vec4<u32>(0u, 1u, 2u, 3u));
    let pixels1 = locate(first + vec4<u32>(4u, 5u, 6u, 7u));

    // sumKP: filters k + 4K.. down a column, pixels first + 4P.. across.
    var sum00 = mat4x4<f32>();
    var sum01 = mat4x4<f32>();
    var sum10 = mat4x4<f32>();
    var sum11 = mat4x4<f32>();
    for (var r = 0u; r < p.r; r++) {
        for (var s = 0u; s < p.s; s++) {
            let source0 = under_tap(pixels0, r, s);
            let source1 = under_tap(pixels1, r, s);
            var weight = (r * p.s + s) * p.c * p.k + k;
            if VEC_C {
                for (var c = 0u; c < p.c; c += 4u) {
                    let x0 = mat4x4<f32>(load_x4(source0.x, c), load_x4(source0.y, c), load_x4(source0.z, c), load_x4(source0.w, c));
                    let x1 = mat4x4<f32>(load_x4(source1.x, c), load_x4(source1.y, c), load_x4(source1.z, c), load_x4(source1.w, c));
                    let w0 = load_w4(weight);
                    sum00 += w0 * x0;
                    sum01 += w0 * x1;
                    if !NARROW {
                        let w1 = load_w4(weight + 4u);
                        sum10 += w1 * x0;
                        sum11 += w1 * x1;
                    }
                    weight += 4u * p.k;
                }
            } else {
                for (var c = 0u; c < p.c; c++) {
                    let x0 = vec4<f32>(load_x(source0.x, c), load_x(source0.y, c), load_x(source0.z, c), load_x(source0.w, c));
                    let x1 = vec4<f32>(load_x(source1.x, c), load_x(source1.y, c), load_x(source1.z, c), load_x(source1.w, c));
                    let w0 = load_w(weight);
                    sum00 += outer(w0, x0);
                    sum01 += outer(w0, x1);
                    if !NARROW {
                        let w1 = load_w(weight + 4u);
                        sum10 += outer(w1, x0);
                        sum11 += outer(w1, x1);
                    }
                    weight += p.k;
                }
            }
        }
    }

    let bias0 = load_b(k);
    store(first + 0u, k, sum00[0] + bias0);
    store(first + 1u, k, sum00[1] + bias0);
    store(first + 2u, k, sum00[2] + bias0);
    store(first + 3u, k, sum00[3] + bias0);
    store(first + 4u, k, sum01[0] + bias0);
    store(first + 5u, k, sum01[1] + bias0);
    store(first + 6u, k, sum01[2] + bias0);
    store(first + 7u, k, sum01[3] + bias0);
    if !NARROW {
        let bias1 = load_b(k + 4u);
        store(first + 0u, k + 4u, sum10[0] + bias1);
        store(first + 1u, k + 4u, sum10[1] + bias1);
        store(first + 2u, k + 4u, sum10[2] + bias1);
        store(first + 3u, k + 4u, sum10[3] + bias1);
        store(first + 4u, k + 4u, sum11[0] + bias1);
        store(first + 5u, k + 4u, sum11[1] + bias1);
        store(first + 6u, k + 4u, sum11[2] + bias1);
        store(first + 7u, k + 4u, sum11[3] + bias1);
    }
}
