// Stores of the gradient of a convolution by its input whose sum is split into slices: each slice
// has its own sums (N,H,W,C) in `partials`, `slice_stride` elements after those of the slice before
// it.
@group(0) @binding(6) var<storage, read_write> partials: array<f32>;
@group(0) @binding(7) var<storage, read_write> partials4: array<Four>;

// Stores the sums of four channels from c on for element `element` of x.
fn put(element: u32, c: u32, sum: vec4<f32>) {
    let i = slice * p.slice_stride + element;
    if VEC_C {
        partials4[i / 4u] = stored(sum);
        return;
    }
    partials[i] = sum.x;
    if c + 1u < p.c {
        partials[i + 1u] = sum.y;
    }
    if c + 2u < p.c {
        partials[i + 2u] = sum.z;
    }
    if c + 3u < p.c {
        partials[i + 3u] = sum.w;
    }
}
