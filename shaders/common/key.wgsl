// Order-preserving keys of floats, and one step of a radix selection over keys by a workgroup of at
// least 16.

// Larger float, larger key; -0 and +0 equal; any NaN above everything.
fn key_of(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let magnitude = bits & 0x7fffffffu;
    if magnitude > 0x7f800000u {
        return 0xffffffffu;
    }
    return select(0x80000000u + magnitude, 0x80000000u - magnitude, bits > 0x7fffffffu);
}

// The float of a key, which is no NaN's.
fn float_of(key: u32) -> f32 {
    return bitcast<f32>(select(key - 0x80000000u, 0x80000000u | (0x80000000u - key), key < 0x80000000u));
}

// The bits of a key from `shift` upwards, for shift <= 32.
fn above(key: u32, shift: u32) -> u32 {
    return select(key >> (shift & 31u), 0u, shift > 31u);
}

// Bits that hold `largest`, in whole bytes.
fn bits_of(largest: u32) -> u32 {
    return select(select(select(32u, 24u, largest < 0x1000000u), 16u, largest < 0x10000u), 8u, largest < 0x100u);
}

struct Digit {
    // The digit, 0 to 255.
    value: u32,
    // How many are still wanted of those with this digit.
    wanted: u32,
    // How many have this digit.
    count: u32,
}

var<workgroup> digit_counts: array<atomic<u32>, 256>;
var<workgroup> digit_sums: array<u32, 16>;
var<workgroup> digit_chosen: Digit;

// Before counting: every invocation of the workgroup, `size` of them, calls it.
fn clear_digits(local: u32, size: u32) {
    for (var i = local; i < 256u; i += size) {
        atomicStore(&digit_counts[i], 0u);
    }
    workgroupBarrier();
}

fn count_digit(digit: u32) {
    atomicAdd(&digit_counts[digit & 255u], 1u);
}

// After counting: the digit of the `wanted`-th largest. Every invocation of the workgroup calls it
// and gets the same answer.
fn choose_digit(local: u32, wanted: u32) -> Digit {
    workgroupBarrier();
    if local < 16u {
        var sum = 0u;
        for (var i = 0u; i < 16u; i++) {
            sum += atomicLoad(&digit_counts[local * 16u + i]);
        }
        digit_sums[local] = sum;
    }
    workgroupBarrier();
    if local == 0u {
        var left = wanted;
        var block = 15u;
        while block > 0u && digit_sums[block] < left {
            left -= digit_sums[block];
            block--;
        }
        var digit = block * 16u + 15u;
        while digit > block * 16u && atomicLoad(&digit_counts[digit]) < left {
            left -= atomicLoad(&digit_counts[digit]);
            digit--;
        }
        digit_chosen = Digit(digit, left, atomicLoad(&digit_counts[digit]));
    }
    return workgroupUniformLoad(&digit_chosen);
}
