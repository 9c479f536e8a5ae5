// Stores of the gradient of a convolution by its input: the epilogue of each sum goes to x.
override ACTIVATION: u32 = 0u;
override GATED: bool = false;

@group(0) @binding(6) var<storage, read> gate: array<Map4>;
@group(0) @binding(7) var<storage, read_write> x: array<Map>;
@group(0) @binding(8) var<storage, read_write> x4: array<Map4>;

// The value stored at element i: f(sum), or with GATED the sum times the slope at the gate.
fn epilogue(i: u32, sum: vec4<f32>) -> vec4<f32> {
    if GATED {
        return gated4(ACTIVATION, p.parameter, sum, gate4_at(i, VEC_C));
    }
    return activate4(ACTIVATION, p.parameter, sum);
}

// Stores the sums of four channels from c on at element i.
fn put(i: u32, c: u32, sum: vec4<f32>) {
    let v = epilogue(i, sum);
    if VEC_C {
        x4[i / 4u] = to_map4(v);
        return;
    }
    x[i] = Map(v.x);
    if c + 1u < p.c {
        x[i + 1u] = Map(v.y);
    }
    if c + 2u < p.c {
        x[i + 2u] = Map(v.z);
    }
    if c + 3u < p.c {
        x[i + 3u] = Map(v.w);
    }
}
