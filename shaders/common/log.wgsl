// Natural logarithms accurate to a few ulp, from + - * / alone. The built-in log of software
// adapters is off by up to 2,550 ulp near 1.

// 2 artanh(s) for |s| <= 0.172, by the Taylor series up to s^9.
fn two_artanh(s: f32) -> f32 {
    let z = s * s;
    return 2.0 * s + 2.0 * s * z * (0.33333334 + z * (0.2 + z * (0.14285715 + z * 0.11111111)));
}

// ln x for x > 0. For x <= 0 it is -104, just below the logarithm of the smallest positive f32.
fn log_accurate(x: f32) -> f32 {
    var bits = bitcast<u32>(x);
    if bits == 0u || bits >= 0x80000000u {
        return -104.0;
    }
    var exponent = -127;
    if bits < 0x00800000u {
        // A subnormal is an integer times 2^-149. Working on its bits avoids that a device flushes
        // it to 0.
        bits = bitcast<u32>(f32(bits));
        exponent -= 149;
    }
    // x = m * 2^exponent with m from sqrt(1/2) (0x3f3504f3) to sqrt(2), so that nothing cancels
    // near x = 1. ln 2 is split in two parts. The first has few bits, so that its product with e is
    // exact for normal x.
    let shifted = bits + (0x3f800000u - 0x3f3504f3u);
    exponent += i32(shifted >> 23u);
    let m = bitcast<f32>((shifted & 0x007fffffu) + 0x3f3504f3u);
    let e = f32(exponent);
    return e * 0.69313812256 + (e * 9.0580006145e-6 + two_artanh((m - 1.0) / (m + 1.0)));
}

// ln(a / b) for a, b > 0, given difference = a - b, which keeps it accurate where a is close to b.
// For example ln(1 + u) is log_ratio(1 + u, 1, u).
fn log_ratio(a: f32, b: f32, difference: f32) -> f32 {
    if abs(difference) < 0.25 * b {
        return two_artanh(difference / (a + b));
    }
    return log_accurate(a / b);
}
