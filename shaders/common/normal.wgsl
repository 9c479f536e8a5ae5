// A standard normal number from a uniform random word: the quantile at u = (word + 1/2) / 2^32,
// which is sqrt(2) erfinv(2u - 1). erfinv is the single-precision approximation by Giles,
// "Approximating the erfinv function", GPU Computing Gems 2011. Twin: normal in
// src/ops/corrupt/cpu.rs.
fn normal_of(word: u32) -> f32 {
    let x = (f32(bitcast<i32>(word ^ 0x80000000u)) + 0.5) / 2147483648.0;
    // `tail` is the distance of u from the nearer of 0 and 1, so that (1 - x)(1 + x) = 4 tail (1 -
    // tail) does not cancel near x = +-1.
    let tail = (f32(min(word, ~word)) + 0.5) / 4294967296.0;
    let w = -log_accurate(4.0 * tail * (1.0 - tail));
    var sum: f32;
    if w < 5.0 {
        let at = w - 2.5;
        sum = 2.81022636e-8;
        sum = 3.43273939e-7 + sum * at;
        sum = -3.5233877e-6 + sum * at;
        sum = -4.39150654e-6 + sum * at;
        sum = 0.00021858087 + sum * at;
        sum = -0.00125372503 + sum * at;
        sum = -0.00417768164 + sum * at;
        sum = 0.246640727 + sum * at;
        sum = 1.50140941 + sum * at;
    } else {
        let at = sqrt(w) - 3.0;
        sum = -0.000200214257;
        sum = 0.000100950558 + sum * at;
        sum = 0.00134934322 + sum * at;
        sum = -0.00367342844 + sum * at;
        sum = 0.00573950773 + sum * at;
        sum = -0.0076224613 + sum * at;
        sum = 0.00943887047 + sum * at;
        sum = 1.00167406 + sum * at;
        sum = 2.83297682 + sum * at;
    }
    return 1.41421356 * x * sum;
}
