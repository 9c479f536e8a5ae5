// The largest values so far and where they lie, four at a time.
struct Largest {
    value: vec4<f32>,
    at: vec4<u32>,
}

// Ties go to the first, and the first NaN wins over numbers.
fn larger(best: Largest, v: vec4<f32>, at: u32) -> Largest {
    let better = ((v > best.value) | is_nan(v)) & !is_nan(best.value);
    return Largest(select(best.value, v, better), select(best.at, vec4<u32>(at), better));
}
