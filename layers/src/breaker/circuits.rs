//! The circuits of a layer that keeps one for each key.

use std::{fmt, hash::Hash, sync::Arc};

use super::{
    change::Mode,
    circuit::{Circuit, Reports},
};
use crate::keyed::Keyed;

/// The circuits of a layer that keeps one for each key. Clones see the same ones.
pub struct Circuits<K> {
    pub(super) circuits: Keyed<K, Circuit>,
    pub(super) reports: Arc<Reports>,
}

impl<K: Eq + Hash + Clone> Circuits<K> {
    /// The circuit of a key that has been seen, and is still kept.
    pub fn get(&self, key: &K) -> Option<Arc<Circuit>> {
        self.circuits.get(key)
    }

    /// The circuit of a key, made now if there is none: to force one that no request has come for yet. One whose mode is not
    /// that of the layer is kept until it is.
    pub fn get_or_make(&self, key: &K) -> Arc<Circuit> {
        self.circuits.get_or_make(key)
    }

    /// Changes the mode of all circuits, and of those that are made from now on.
    pub fn set_mode(&self, mode: Mode) {
        *self.reports.mode() = mode;
        for (_, circuit) in self.all() {
            circuit.set_mode(mode);
        }
    }

    /// All keys that are kept, and their circuits. Costs a copy of each key.
    pub fn all(&self) -> Vec<(K, Arc<Circuit>)> {
        self.circuits.all()
    }

    /// How many keys are kept.
    pub fn len(&self) -> usize {
        self.circuits.len()
    }

    /// Whether no request has come yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K> Clone for Circuits<K> {
    fn clone(&self) -> Self {
        Self { circuits: self.circuits.clone(), reports: Arc::clone(&self.reports) }
    }
}

impl<K> fmt::Debug for Circuits<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Circuits").finish_non_exhaustive()
    }
}
