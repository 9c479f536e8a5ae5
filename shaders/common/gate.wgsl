// The gate: the output of an activation function, from which the epilogue computes the slope that
// multiplies a gradient. The kernel declares `gate: array<Map4>`.
fn gate_at(i: u32) -> f32 {
    return map4(gate[i / 4u])[i % 4u];
}

// Elements i to i + 3. `aligned`: i is a multiple of 4, so that one load suffices instead of four.
fn gate4_at(i: u32, aligned: bool) -> vec4<f32> {
    if aligned {
        return map4(gate[i / 4u]);
    }
    return vec4<f32>(gate_at(i), gate_at(i + 1u), gate_at(i + 2u), gate_at(i + 3u));
}
