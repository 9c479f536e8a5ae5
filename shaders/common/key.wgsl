// Order-preserving integer keys of floats, and one digit of a radix selection over keys by a
// workgroup of at least 16 invocations.
//
// FXC, the compiler that wgpu uses on DX12 without dxcompiler.dll, refuses a barrier if workgroup
// memory decides whether it is reached. Hence no kernel decides by a digit whether it chooses
// another one: it goes through all digits, and skips only the counting.

// The key of a float: larger floats have larger keys, -0 and +0 have the same, and NaN has the
// largest.
fn key_of(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let magnitude = bits & 0x7fffffffu;
    if magnitude > 0x7f800000u {
        return 0xffffffffu;
    }
    return select(0x80000000u + magnitude, 0x80000000u - magnitude, bits > 0x7fffffffu);
}

// The float of a key other than that of NaN.
fn float_of(key: u32) -> f32 {
    let bits = select(key - 0x80000000u, 0x80000000u | (0x80000000u - key), key < 0x80000000u);
    return bitcast<f32>(bits);
}

// The bits of a key from bit `shift` upwards. shift = 32 gives 0, which >> alone would not.
fn high_bits(key: u32, shift: u32) -> u32 {
    return select(key >> (shift & 31u), 0u, shift > 31u);
}

// The number of bits that hold `largest`, rounded up to whole bytes.
fn whole_byte_bits(largest: u32) -> u32 {
    let up_to_four = select(32u, 24u, largest < 0x1000000u);
    return select(select(up_to_four, 16u, largest < 0x10000u), 8u, largest < 0x100u);
}

// The outcome of one digit of a selection.
struct Digit {
    // The digit, 0 to 255, of the smallest key selected.
    value: u32,
    // How many of the keys with this digit are still to be selected.
    wanted: u32,
    // How many keys have this digit.
    count: u32,
}

var<workgroup> digit_counts: array<atomic<u32>, 256>;
// The counts of the digit that is being chosen, and the sum of every 16 of them.
var<workgroup> digit_found: array<u32, 256>;
var<workgroup> digit_sums: array<u32, 16>;
var<workgroup> digit_chosen: Digit;

// Resets the counts. All `size` invocations of the workgroup must call it before they count for the
// first digit.
fn clear_digits(local: u32, size: u32) {
    for (var i = local; i < 256u; i += size) {
        atomicStore(&digit_counts[i], 0u);
    }
    workgroupBarrier();
}

fn count_digit(digit: u32) {
    atomicAdd(&digit_counts[digit & 255u], 1u);
}

// The digit of the `wanted`-th largest key, or 0 if nothing was counted and wanted > 0. All
// invocations of the workgroup must call it after counting; all get the same result, and the counts
// are 0 for the next digit. 16 invocations add 16 counts each, then one searches.
fn choose_digit(local: u32, wanted: u32) -> Digit {
    workgroupBarrier();
    if local < 16u {
        var sum = 0u;
        for (var i = local * 16u; i < local * 16u + 16u; i++) {
            let count = atomicLoad(&digit_counts[i]);
            digit_found[i] = count;
            sum += count;
        }
        digit_sums[local] = sum;
    }
    workgroupBarrier();
    // Reset only behind a barrier: NVIDIA's compiler (driver 580) moves an atomic load past a store
    // that follows it. An atomicExchange would be right, but slower on software adapters, which
    // have no vectors of it.
    if local < 16u {
        for (var i = local * 16u; i < local * 16u + 16u; i++) {
            atomicStore(&digit_counts[i], 0u);
        }
    }
    if local == 0u {
        var left = wanted;
        var block = 15u;
        while block > 0u && digit_sums[block] < left {
            left -= digit_sums[block];
            block--;
        }
        var digit = block * 16u + 15u;
        while digit > block * 16u && digit_found[digit] < left {
            left -= digit_found[digit];
            digit--;
        }
        digit_chosen = Digit(digit, left, digit_found[digit]);
    }
    workgroupBarrier();
    return digit_chosen;
}
