//! Colour maps: the colour of a value from 0 to 1.

/// A colour map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColourMap {
    /// Black to white.
    Gray,
    /// Dark violet to yellow, with a lightness that rises evenly: the map viridis of Smith and van
    /// der Walt, 2015.
    Viridis,
    /// Blue, white at 0.5, red: the scheme RdBu of Harrower and Brewer, "ColorBrewer.org", 2003,
    /// reversed.
    Diverging,
}

/// Ten colours of viridis at equal distances.
const VIRIDIS: [[u8; 3]; 10] = [
    [0x44, 0x01, 0x54],
    [0x48, 0x28, 0x78],
    [0x3e, 0x49, 0x89],
    [0x31, 0x68, 0x8e],
    [0x26, 0x82, 0x8e],
    [0x1f, 0x9e, 0x89],
    [0x35, 0xb7, 0x79],
    [0x6e, 0xce, 0x58],
    [0xb5, 0xde, 0x2b],
    [0xfd, 0xe7, 0x25],
];

/// Eleven colours from blue to red at equal distances.
const DIVERGING: [[u8; 3]; 11] = [
    [0x05, 0x30, 0x61],
    [0x21, 0x66, 0xac],
    [0x43, 0x93, 0xc3],
    [0x92, 0xc5, 0xde],
    [0xd1, 0xe5, 0xf0],
    [0xf7, 0xf7, 0xf7],
    [0xfd, 0xdb, 0xc7],
    [0xf4, 0xa5, 0x82],
    [0xd6, 0x60, 0x4d],
    [0xb2, 0x18, 0x2b],
    [0x67, 0x00, 0x1f],
];

impl ColourMap {
    /// The colour (red, green, blue, from 0 to 1) of a value. Values outside 0…1 are clipped; one
    /// that is not a number counts as 0.
    pub fn colour(self, value: f32) -> [f32; 3] {
        let value = if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) };
        match self {
            Self::Gray => [value; 3],
            Self::Viridis => between(&VIRIDIS, value),
            Self::Diverging => between(&DIVERGING, value),
        }
    }
}

/// The colour at a place from 0 to 1 in a table, interpolated linearly.
fn between(table: &[[u8; 3]], value: f32) -> [f32; 3] {
    let place = value * (table.len() - 1) as f32;
    let below = (place as usize).min(table.len() - 2);
    let share = place - below as f32;
    std::array::from_fn(|c| {
        let [low, high] = [below, below + 1].map(|i| f32::from(table[i][c]) / 255.0);
        low + share * (high - low)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lightness L* of CIELAB (CIE 15), from 0 to 100.
    fn lightness(colour: [f32; 3]) -> f32 {
        let linear =
            colour.map(|v| if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) });
        let y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
        116.0 * (if y > 0.008_856 { y.cbrt() } else { 7.787 * y + 16.0 / 116.0 }) - 16.0
    }

    #[test]
    fn the_lightness_of_viridis_rises_evenly() {
        let steps = |map: ColourMap| -> Vec<f32> {
            let all: Vec<f32> = (0..=9).map(|i| lightness(map.colour(i as f32 / 9.0))).collect();
            all.windows(2).map(|pair| pair[1] - pair[0]).collect()
        };
        let is_even = |steps: &[f32]| steps.iter().all(|step| (6.0..11.0).contains(step));
        let found = steps(ColourMap::Viridis);
        assert!(is_even(&found), "{found:?}");
        assert!(!is_even(&steps(ColourMap::Diverging)));
    }

    #[test]
    fn the_diverging_map_is_white_in_the_middle_and_as_dark_at_both_ends() {
        let map = ColourMap::Diverging;
        let [low, middle, high] = [0.0, 0.5, 1.0].map(|value| lightness(map.colour(value)));
        assert!(middle > 95.0 && (low - high).abs() < 6.0, "{low} {middle} {high}");
        let ([r, _, b], [red, _, blue]) = (map.colour(0.1), map.colour(0.9));
        assert!(b > r && red > blue);
    }

    #[test]
    fn values_outside_are_clipped() {
        for map in [ColourMap::Gray, ColourMap::Viridis, ColourMap::Diverging] {
            assert_eq!(map.colour(-3.0), map.colour(0.0));
            assert_eq!(map.colour(f32::NAN), map.colour(0.0));
            assert_eq!(map.colour(f32::INFINITY), map.colour(1.0));
        }
        assert_eq!(ColourMap::Gray.colour(0.25), [0.25; 3]);
    }
}
