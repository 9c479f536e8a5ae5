// Thresholds of four elements whose channels are (4i + k) mod C. With LEVELS they depend on the
// noise level of the sample: threshold[c] + slope[c] * level[n]. p.sample is the number of elements
// of a sample.
override LEVELS: bool = false;

struct Params {
    vectors: u32,
    channels: u32,
    sample: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read> threshold: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> slope: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> level: array<f32>;

fn threshold_of(element: u32) -> f32 {
    let c = element % p.channels;
    var t = threshold[c / 4u][c % 4u];
    if LEVELS {
        t += slope[c / 4u][c % 4u] * level[element / p.sample];
    }
    return t;
}

fn thresholds(i: u32) -> vec4<f32> {
    if p.channels % 4u != 0u {
        return vec4<f32>(
            threshold_of(4u * i),
            threshold_of(4u * i + 1u),
            threshold_of(4u * i + 2u),
            threshold_of(4u * i + 3u),
        );
    }
    // Four channels of one pixel.
    let c = i % (p.channels / 4u);
    if LEVELS {
        return threshold[c] + slope[c] * level[4u * i / p.sample];
    }
    return threshold[c];
}
