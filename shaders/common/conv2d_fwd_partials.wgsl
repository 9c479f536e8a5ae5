// Stores of a forward convolution whose sum is split into slices: each slice has its own sums
// (N,P,Q,K) in `partials`, `slice_stride` elements after those of the slice before it.
@group(0) @binding(6) var<storage, read_write> partials: array<f32>;
@group(0) @binding(7) var<storage, read_write> partials4: array<Four>;

// Stores four filters of a pixel.
fn store(pixel: u32, k: u32, sum: vec4<f32>) {
    if pixel >= rows() || k >= p.k {
        return;
    }
    let i = slice * p.slice_stride + pixel * p.k + k;
    if VEC_K {
        partials4[i / 4u] = stored(sum);
        return;
    }
    partials[i] = sum.x;
    if k + 1u < p.k {
        partials[i + 1u] = sum.y;
    }
    if k + 2u < p.k {
        partials[i + 2u] = sum.z;
    }
    if k + 3u < p.k {
        partials[i + 3u] = sum.w;
    }
}
