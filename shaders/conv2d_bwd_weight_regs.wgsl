//!include conv2d fours map grid
// dw[r,s,c,k] = sum over n,p,q of x[n, p*stride - pad + r*dilation, ..., c] * dy[n,p,q,k], split
//   into slices of the pixels (n,p,q), without groups.
// Layouts: x (N,H,W,C), dy (N,P,Q,K), out (slices, R,S,C,K) with `slice_stride` elements from slice
//   to slice: partial sums that sum_partials adds, or dw itself if there is one slice. `x4` is `x`
//   and `dy4` is `dy`, bound as vec4s. VEC_C: C is a multiple of 4. VEC_K: K is a multiple of 4.
//   NARROW_C: C <= 4. NARROW_K: K <= 4.
// A matrix product in registers, which maximises arithmetic per load.
// Invocation: 8 channels by 8 filters of one tap and slice.
// Grid: slices*R*S*ceil(C / 8)*ceil(K / 8) invocations, filters fastest.
// Precondition: channels past C and filters past K are computed but not stored. Their loads may run
//   past the end of a buffer, so bounds checks must stay on.
// Twin: Conv2dBwdWeight in src/ops/conv2d/cpu.rs.

override VEC_C: bool = false;
override VEC_K: bool = false;
override NARROW_C: bool = false;
override NARROW_K: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map>;
@group(0) @binding(2) var<storage, read> x4: array<Map4>;
@group(0) @binding(3) var<storage, read> dy: array<Map>;
@group(0) @binding(4) var<storage, read> dy4: array<Map4>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

fn load_x(i: u32) -> vec4<f32> {
    if VEC_C {
        return map4(x4[i / 4u]);
    }
    return vec4<f32>(f32(x[i]), f32(x[i + 1u]), f32(x[i + 2u]), f32(x[i + 3u]));
}

fn load_dy(i: u32) -> vec4<f32> {
    if VEC_K {
        return map4(dy4[i / 4u]);
    }
    return vec4<f32>(f32(dy[i]), f32(dy[i + 1u]), f32(dy[i + 2u]), f32(dy[i + 3u]));
}

// Stores four filters of one channel. `row` is the start of (slice, r, s) in `out`.
fn store(row: u32, c: u32, k: u32, v: vec4<f32>) {
    if c >= p.c {
        return;
    }
    let i = row + c * p.k + k;
    if k < p.k {
        out[i] = v.x;
    }
    if k + 1u < p.k {
        out[i + 1u] = v.y;
    }
    if k + 2u < p.k {
        out[i + 2u] = v.z;
    }
    if k + 3u < p.k {
        out[i + 3u] = v.w;
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
    let k_blocks = (p.k + 7u) / 8u;
    let c_blocks = (p.c + 7u) / 8u;
    let k = i % k_blocks * 8u;
    let c = i / k_blocks % c_blocks * 8u;
    let tap = i / (k_blocks * c_blocks) % (p.r * p.s);
    let slice = i / (k_blocks * c_blocks * p.r * p.s);
    if slice >= p.slices {
        return;
    }
    // Above and left of the input the unsigned coordinates wrap to huge values, so that one
    // comparison covers both borders.
    let down = tap / p.s * p.dilation_h - p.pad_h;
    let along = tap % p.s * p.dilation_w - p.pad_w;
    let begin = slice * p.slice_terms;
    let end = min(begin + p.slice_terms, p.n * p.p * p.q);
    var q = begin % p.q;
    var row = begin / p.q % p.p;
    var n = begin / (p.p * p.q);

    // sumCK: each of its columns is one of the channels c + 4C .., and holds filters k + 4K ..
    var sum00 = mat4x4<f32>();
    var sum01 = mat4x4<f32>();
    var sum10 = mat4x4<f32>();
    var sum11 = mat4x4<f32>();
    for (var pixel = begin; pixel < end; pixel++) {
        let h = row * p.stride_h + down;
        let column = q * p.stride_w + along;
        if h < p.h && column < p.w {
            let source = ((n * p.h + h) * p.w + column) * p.c + c;
            let x0 = load_x(source);
            let dy0 = load_dy(pixel * p.k + k);
            sum00 += outer(dy0, x0);
            if !NARROW_C {
                let x1 = load_x(source + 4u);
                sum10 += outer(dy0, x1);
                if !NARROW_K {
                    let dy1 = load_dy(pixel * p.k + k + 4u);
                    sum01 += outer(dy1, x0);
                    sum11 += outer(dy1, x1);
                }
            } else if !NARROW_K {
                sum01 += outer(load_dy(pixel * p.k + k + 4u), x0);
            }
        }
        q++;
        if q == p.q {
            q = 0u;
            row++;
            if row == p.p {
                row = 0u;
                n++;
            }
        }
    }

    let target_row = slice * p.slice_stride + tap * p.c * p.k;
    store(target_row, c + 0u, k, sum00[0]);
    store(target_row, c + 1u, k, sum00[1]);
    store(target_row, c + 2u, k, sum00[2]);
    store(target_row, c + 3u, k, sum00[3]);
    if !NARROW_K {
        store(target_row, c + 0u, k + 4u, sum01[0]);
        store(target_row, c + 1u, k + 4u, sum01[1]);
        store(target_row, c + 2u, k + 4u, sum01[2]);
        store(target_row, c + 3u, k + 4u, sum01[3]);
    }
    if !NARROW_C {
        store(target_row, c + 4u, k, sum10[0]);
        store(target_row, c + 5u, k, sum10[1]);
        store(target_row, c + 6u, k, sum10[2]);
        store(target_row, c + 7u, k, sum10[3]);
    }
    if !NARROW_C && !NARROW_K {
        store(target_row, c + 4u, k + 4u, sum11[0]);
        store(target_row, c + 5u, k + 4u, sum11[1]);
        store(target_row, c + 6u, k + 4u, sum11[2]);
        store(target_row, c + 7u, k + 4u, sum11[3]);
    }
}
