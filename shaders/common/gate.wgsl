// The gate: the output z of an activation function f, from which the epilogue computes the slope
// that multiplies a gradient. The kernel declares `gate: array<Map4>` and `p.penalty`.

// There is an L1 penalty on z.
override PENALISED: bool = false;

// The gradient by the input of f, from `gradient` by z, without that of the penalty.
fn gated4(code: u32, parameter: f32, gradient: vec4<f32>, z: vec4<f32>) -> vec4<f32> {
    var sum = gradient;
    if PENALISED {
        sum += p.penalty * step.sparsity_scale * sign(z);
    }
    return sum * activation_slope_output4(code, parameter, z);
}

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
