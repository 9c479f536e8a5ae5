//! Published results under the protocols.

use serde::Serialize;

use super::{Degradation, Protocol};

/// A published result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Published {
    /// Name of the method.
    pub method: &'static str,
    /// Mean PSNR over the test set in dB.
    pub psnr: f64,
    /// The publication with the result.
    pub source: &'static str,
}

/// Method, source, and mean PSNR for each degradation of the protocol; NaN if not published.
pub(super) type PublishedRow = (&'static str, &'static str, &'static [f64]);

const DNCNN: &str = "Zhang et al., Beyond a Gaussian Denoiser, TIP 2017";
const DNCNN_CODE: &str = "Zhang et al., README of the code of DnCNN, github.com/cszn/DnCNN";
const SRCNN: &str =
    "Dong et al., Image Super-Resolution Using Deep Convolutional Networks, TPAMI 2016";
const CSCNET: &str = "Simon & Elad, Rethinking the CSC Model for Natural Images, NeurIPS 2019";
const CDLNET: &str = "Janjušević et al., CDLNet: Noise-Adaptive Convolutional Dictionary Learning \
                      Network, 2022; 66 thousand parameters";
const RESTORMER: &str = "Zamir et al., Restormer, CVPR 2022, table of colour denoising";
const NONE: f64 = f64::NAN;

pub(super) const BSD68: &[PublishedRow] = &[
    ("BM3D", DNCNN, &[31.07, 28.57, 25.62]),
    ("CSCNet", CSCNET, &[NONE, 28.93, NONE]),
    ("FCDLNet", CDLNET, &[31.45, 28.99, 26.11]),
    ("DnCNN-S", DNCNN, &[31.73, 29.23, 26.23]),
];
pub(super) const SET12: &[PublishedRow] =
    &[("BM3D", DNCNN, &[32.37, 29.97, 26.72]), ("DnCNN-S", DNCNN, &[32.86, 30.44, 27.18])];
pub(super) const CBSD68: &[PublishedRow] = &[
    ("CBM3D", DNCNN, &[33.52, 30.71, 27.38]),
    ("CDnCNN", DNCNN, &[33.99, 31.31, 28.01]),
    ("FFDNet", RESTORMER, &[33.87, 31.21, 27.96]),
];
pub(super) const KODAK24: &[PublishedRow] =
    &[("IRCNN", RESTORMER, &[34.69, 32.18, 28.93]), ("FFDNet", RESTORMER, &[34.63, 32.13, 28.98])];
pub(super) const MCMASTER: &[PublishedRow] =
    &[("IRCNN", RESTORMER, &[34.58, 32.18, 28.91]), ("FFDNet", RESTORMER, &[34.66, 32.35, 29.18])];
pub(super) const SET5: &[PublishedRow] = &[
    ("bicubic", SRCNN, &[33.66, 30.39, 28.42]),
    ("SRCNN", SRCNN, &[36.66, 32.75, 30.49]),
    ("VDSR", DNCNN_CODE, &[37.56, 33.67, 31.35]),
];
pub(super) const SET14: &[PublishedRow] = &[
    ("bicubic", SRCNN, &[30.23, 27.54, 26.00]),
    ("SRCNN", SRCNN, &[32.45, 29.30, 27.50]),
    ("VDSR", DNCNN_CODE, &[33.02, 29.77, 27.99]),
];
pub(super) const BSD100: &[PublishedRow] =
    &[("TNRD", DNCNN_CODE, &[31.40, 28.50, 27.00]), ("VDSR", DNCNN_CODE, &[31.89, 28.82, 27.28])];
pub(super) const URBAN100: &[PublishedRow] =
    &[("TNRD", DNCNN_CODE, &[29.70, 26.42, 24.61]), ("VDSR", DNCNN_CODE, &[30.76, 27.13, 25.17])];
pub(super) const INPAINT50: &[PublishedRow] = &[
    (
        "slice-based CSC",
        "Papyan et al., Convolutional Dictionary Learning via Local Processing, ICCV 2017",
        &[31.41],
    ),
    ("deep image prior", "Ulyanov et al., Deep Image Prior, CVPR 2018", &[33.52]),
];

pub(super) const CLASSIC5: &[PublishedRow] = &[
    ("AR-CNN", DNCNN_CODE, &[29.03, 31.15, 32.51, 33.34]),
    ("DnCNN-3", DNCNN_CODE, &[29.40, 31.63, 32.91, 33.77]),
];
pub(super) const LIVE1: &[PublishedRow] = &[
    ("AR-CNN", DNCNN_CODE, &[28.96, 31.29, 32.67, 33.63]),
    ("DnCNN-3", DNCNN_CODE, &[29.19, 31.59, 32.98, 33.96]),
];

/// The published results of a protocol for one degradation, in ascending order of PSNR.
pub fn published(protocol: Protocol, degradation: Degradation) -> Vec<Published> {
    let Some(at) = protocol.degradations().iter().position(|known| *known == degradation) else {
        return Vec::new();
    };
    let rows = protocol.row().published.iter();
    let rows = rows.map(|&(method, source, means)| Published { method, psnr: means[at], source });
    let mut listed: Vec<Published> = rows.filter(|row| !row.psnr.is_nan()).collect();
    listed.sort_by(|a, b| a.psnr.total_cmp(&b.psnr));
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_has_published_results_in_order() {
        for &protocol in Protocol::ALL {
            let name = protocol.name();
            let row = protocol.row();
            for &(method, _, means) in row.published {
                assert_eq!(means.len(), row.degradations.len(), "{name} {method}");
            }
            for &degradation in protocol.degradations() {
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
