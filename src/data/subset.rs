//! Subsets of annotated image sets, for example the training images.

/// Images with annotations.
pub trait AnnotatedImages {
    /// Number of images.
    fn count(&self) -> usize;

    /// Host memory of the images and annotations in bytes, including buffers for streaming.
    fn memory(&self) -> u64;
}

/// A subset of an annotated image set.
#[derive(Clone, Debug)]
pub struct Subset<'a, S: ?Sized> {
    /// The set.
    pub set: &'a S,
    /// Indices of the images in the set.
    pub indices: Vec<usize>,
    /// Description for messages, for example `held-out images`.
    pub name: &'static str,
}

impl<'a, S: ?Sized> Subset<'a, S> {
    /// Returns the training images and the validation images of a run. `training` and `held_out`
    /// are indices into `set`. Validation uses the set `validation` if it is given, otherwise the
    /// held-out images, or the training images if no images are held out.
    pub fn for_training(
        set: &'a S,
        [training, held_out]: [Vec<usize>; 2],
        validation: Option<(&'a S, usize)>,
    ) -> (Self, Self) {
        let validates = if let Some((set, count)) = validation {
            Self { set, indices: (0..count).collect(), name: "validation" }
        } else if held_out.is_empty() {
            Self { set, indices: training.clone(), name: "the training images" }
        } else {
            Self { set, indices: held_out, name: "held-out images" }
        };
        (Self { set, indices: training, name: "training images" }, validates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: [u8; 5] = [0; 5];
    const OTHER: [u8; 3] = [1; 3];

    #[test]
    fn held_out_images_validate() {
        let (training, validation) = Subset::for_training(&SET[..], [vec![0, 3], vec![1]], None);
        assert_eq!((training.indices, training.name), (vec![0, 3], "training images"));
        assert_eq!((validation.indices, validation.name), (vec![1], "held-out images"));
    }

    #[test]
    fn without_held_out_images_the_training_images_validate() {
        let (_, validation) = Subset::for_training(&SET[..], [vec![0, 3], vec![]], None);
        assert_eq!((validation.indices, validation.name), (vec![0, 3], "the training images"));
    }

    #[test]
    fn another_set_validates_with_all_its_images() {
        let other = Some((&OTHER[..], OTHER.len()));
        let (_, validation) = Subset::for_training(&SET[..], [vec![0, 3], vec![]], other);
        assert_eq!((validation.set, validation.indices), (&OTHER[..], vec![0, 1, 2]));
    }
}
