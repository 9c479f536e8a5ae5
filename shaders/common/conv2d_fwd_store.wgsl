// Stores of a forward convolution: the epilogue of each sum goes to y.
override ACTIVATION: u32 = 0u;
override GATED: bool = false;

@group(0) @binding(6) var<storage, read> gate: array<Map4>;
@group(0) @binding(7) var<storage, read_write> y: array<Map>;
@group(0) @binding(8) var<storage, read_write> y4: array<Map4>;

// The value stored at element i: f(sum), or with GATED the sum times the slope at the gate.
fn epilogue(i: u32, sum: vec4<f32>) -> vec4<f32> {
    if GATED {
        return gated4(ACTIVATION, p.parameter, sum, gate4_at(i, VEC_K));
    }
    return activate4(ACTIVATION, p.parameter, sum);
}

// Stores four filters of a pixel.
fn store(pixel: u32, k: u32, sum: vec4<f32>) {
    if pixel >= rows() || k >= p.k {
        return;
    }
    let i = pixel * p.k + k;
    let v = epilogue(i, sum);
    if VEC_K {
        y4[i / 4u] = to_map4(v);
        return;
    }
    y[i] = Map(v.x);
    if k + 1u < p.k {
        y[i + 1u] = Map(v.y);
    }
    if k + 2u < p.k {
        y[i + 2u] = Map(v.z);
    }
    if k + 3u < p.k {
        y[i + 3u] = Map(v.w);
    }
}
