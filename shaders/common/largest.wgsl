// A running maximum of four lanes with the position of each.
struct Largest {
    value: vec4<f32>,
    at: vec4<u32>,
}

// Updates the maximum with `v` at position `at`. Ties go to the first, and the first NaN wins over
// numbers.
fn larger(best: Largest, v: vec4<f32>, at: u32) -> Largest {
    let better = ((v > best.value) | is_nan(v)) & !is_nan(best.value);
    return Largest(select(best.value, v, better), select(best.at, vec4<u32>(at), better));
}
