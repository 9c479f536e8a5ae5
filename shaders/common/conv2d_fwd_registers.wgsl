// The product of the forward convolution kernels in registers: one invocation sums 8 pixels, in the
// order of conv2d_fwd_pixels or conv2d_fwd_windows, by 8 filters. With NARROW (K <= 4) it sums only
// the first 4 filters.

override VEC_C: bool = false;
override VEC_K: bool = false;
override NARROW: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map>;
@group(0) @binding(2) var<storage, read> x4: array<Map4>;
@group(0) @binding(3) var<storage, read> w: array<f32>;
@group(0) @binding(4) var<storage, read> w4: array<Four>;
@group(0) @binding(5) var<storage, read> b: array<f32>;

// The numbers of the pixels of x under tap (r,s), -1 in the padding.
fn under_tap(pixels: Pixels, r: u32, s: u32) -> vec4<i32> {
    let h = pixels.h + i32(r * p.dilation_h);
    let w = pixels.w + i32(s * p.dilation_w);
    let inside = (vec4<u32>(h) < vec4<u32>(p.h)) & (vec4<u32>(w) < vec4<u32>(p.w));
    let tap = i32(r * p.dilation_h * p.w + s * p.dilation_w);
    return select(vec4<i32>(-1), pixels.corner + tap, inside);
}

// Outside the map pixel 0 is read and discarded, which is cheaper than a branch.
fn load_x4(pixel: i32, c: u32) -> vec4<f32> {
    return select(map4(x4[(u32(max(pixel, 0)) * p.c + c) / 4u]), vec4<f32>(0.0), pixel < 0);
}

fn load_x(pixel: i32, c: u32) -> f32 {
    return select(f32(x[u32(max(pixel, 0)) * p.c + c]), 0.0, pixel < 0);
}

fn load_w(i: u32) -> vec4<f32> {
    if VEC_K {
        return four(w4[i / 4u]);
    }
    return vec4<f32>(w[i], w[i + 1u], w[i + 2u], w[i + 3u]);
}

// The weights of four channels: a column for each channel.
fn load_w4(i: u32) -> mat4x4<f32> {
    return mat4x4<f32>(load_w(i), load_w(i + p.k), load_w(i + 2u * p.k), load_w(i + 3u * p.k));
}

fn load_b(k: u32) -> vec4<f32> {
    if p.has_bias == 0u {
        return vec4<f32>(0.0);
    }
    return vec4<f32>(b[k], b[k + 1u], b[k + 2u], b[k + 3u]);
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
    if first >= rows() {
        return;
    }
    let pixels0 = locate(first);
    let pixels1 = locate(first + 4u);

    // sumKP: each of its columns is one of the pixels first + 4P .., and holds filters k + 4K ..
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
                    let x0 = mat4x4<f32>(
                        load_x4(source0.x, c),
                        load_x4(source0.y, c),
                        load_x4(source0.z, c),
                        load_x4(source0.w, c),
                    );
                    let x1 = mat4x4<f32>(
                        load_x4(source1.x, c),
                        load_x4(source1.y, c),
                        load_x4(source1.z, c),
                        load_x4(source1.w, c),
                    );
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
                    let x0 = vec4<f32>(
                        load_x(source0.x, c),
                        load_x(source0.y, c),
                        load_x(source0.z, c),
                        load_x(source0.w, c),
                    );
                    let x1 = vec4<f32>(
                        load_x(source1.x, c),
                        load_x(source1.y, c),
                        load_x(source1.z, c),
                        load_x(source1.w, c),
                    );
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

    let ones = vec4<f32>(1.0);
    let bias0 = outer(load_b(k), ones);
    store_rows(first, k, sum00 + bias0);
    store_rows(first + 4u, k, sum01 + bias0);
    if !NARROW {
        let bias1 = outer(load_b(k + 4u), ones);
        store_rows(first, k + 4u, sum10 + bias1);
        store_rows(first + 4u, k + 4u, sum11 + bias1);
    }
}
