// The sum of the plain forward convolution kernels.

override ACTIVATION: u32 = 0u;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> b: array<f32>;

// sum over r, s and the channels c of the group of k, at pixel (row, column) of y.
fn sum_at(n: u32, row: u32, column: u32, k: u32) -> f32 {
    let top = row * p.stride_h;
    let left = column * p.stride_w;
    let channels = p.c / p.groups;
    let first = k / (p.k / p.groups) * channels;

    var sum = 0.0;
    for (var r = 0u; r < p.r; r++) {
        // Above and left of the input the unsigned coordinates wrap to huge values, so that one
        // comparison covers both borders.
        let h = top + r * p.dilation_h - p.pad_h;
        if h >= p.h {
            continue;
        }
        for (var s = 0u; s < p.s; s++) {
            let along = left + s * p.dilation_w - p.pad_w;
            if along >= p.w {
                continue;
            }
            let source = ((n * p.h + h) * p.w + along) * p.c + first;
            let weight = (r * p.s + s) * channels * p.k + k;
            for (var c = 0u; c < channels; c++) {
                sum += f32(x[source + c]) * w[weight + c * p.k];
            }
        }
    }
    return sum;
}
