//! What others report under the protocols of [`crate::tasks::restore::protocol`].

use serde::Serialize;

use crate::tasks::restore::protocol::{Degradation, Protocol};

/// A published mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Published {
    /// The method.
    pub method: &'static str,
    /// Mean PSNR over the set in dB.
    pub psnr: f64,
    /// Where it was published.
    pub source: &'static str,
}

/// A method, its source, and its means at the protocol's degradations, in their order; NaN where
/// none is listed.
type PublishedRow = (&'static str, &'static str, [f64; 3]);

const DNCNN: &str = "Zhang et al., Beyond a Gaussian Denoiser, TIP 2017";
const SRCNN: &str =
    "Dong et al., Image Super-Resolution Using Deep Convolutional Networks, TPAMI 2016";
const CSCNET: &str = "Simon & Elad, Rethinking the CSC Model for Natural Images, NeurIPS 2019";
const CDLNET: &str = "Janjušević et al., CDLNet: Noise-Adaptive Convolutional Dictionary Learning Network, 2022; 66 thousand parameters";
const NONE: f64 = f64::NAN;

const BSD68: &[PublishedRow] = &[
    ("BM3D", DNCNN, [31.07, 28.57, 25.62]),
    ("CSCNet", CSCNET, [NONE, 28.93, NONE]),
    ("FCDLNet", CDLNET, [31.45, 28.99, 26.11]),
    ("DnCNN-S", DNCNN, [31.73, 29.23, 26.23]),
];
const SET12: &[PublishedRow] =
    &[("BM3D", DNCNN, [32.37, 29.97, 26.72]), ("DnCNN-S", DNCNN, [32.86, 30.44, 27.18])];
const SET5: &[PublishedRow] =
    &[("bicubic", SRCNN, [33.66, 30.39, 28.42]), ("SRCNN", SRCNN, [36.66, 32.75, 30.49])];
const SET14: &[PublishedRow] =
    &[("bicubic", SRCNN, [30.23, 27.54, 26.00]), ("SRCNN", SRCNN, [32.45, 29.30, 27.50])];
const INPAINT50: &[PublishedRow] = &[
    (
        "slice-based CSC",
        "Papyan et al., Convolutional Dictionary Learning via Local Processing, ICCV 2017",
        [31.41, NONE, NONE],
    ),
    ("deep image prior", "Ulyanov et al., Deep Image Prior, CVPR 2018", [33.52, NONE, NONE]),
];

/// The published means of a protocol at one degradation, the lowest first.
pub fn published(protocol: Protocol, degradation: Degradation) -> Vec<Published> {
    let rows = match protocol {
        Protocol::Bsd68 => BSD68,
        Protocol::Set12 => SET12,
        Protocol::Set5 => SET5,
        Protocol::Set14 => SET14,
        Protocol::Inpaint50 => INPAINT50,
    };
    let Some(at) = protocol.degradations().iter().position(|known| *known == degradation) else {
        return Vec::new();
    };
    let listed = rows.iter().filter(|(_, _, means)| !means[at].is_nan());
    listed.map(|&(method, source, means)| Published { method, psnr: means[at], source }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_has_rows_in_order() {
        for &protocol in Protocol::ALL {
            let name = protocol.name();
            for degradation in protocol.degradations() {
                let rows = published(protocol, degradation);
                assert!(
                    rows.len() >= 2 && rows.is_sorted_by(|a, b| a.psnr < b.psnr),
                    "{name} {degradation}"
                );
            }
            assert_eq!(published(protocol, Degradation::Sigma(7.0)), []);
        }
    }
}
