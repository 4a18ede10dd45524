use std::sync::Arc;

use quick_cache::Equivalent;

/// A statement by its text and the keyspace that unqualified names in it refer to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) text: Arc<str>,
    pub(super) keyspace: Option<Arc<String>>,
}

/// The same, borrowed: a look-up allocates nothing.
#[derive(Debug, Hash)]
pub(super) struct KeyRef<'a> {
    pub(super) text: &'a str,
    pub(super) keyspace: Option<&'a str>,
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.text == &*key.text && self.keyspace == key.keyspace.as_ref().map(|keyspace| keyspace.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn a_borrowed_key_finds_the_owned_one() {
        let hasher = RandomState::new();
        for keyspace in [None, Some("app")] {
            let owned = Key {
                text: "SELECT 1".into(),
                keyspace: keyspace.map(|keyspace| Arc::new(keyspace.to_owned())),
            };
            let borrowed = KeyRef { text: "SELECT 1", keyspace };
            assert!(borrowed.equivalent(&owned));
            assert_eq!(hasher.hash_one(&borrowed), hasher.hash_one(&owned));
        }
        let other = Key { text: "SELECT 1".into(), keyspace: Some(Arc::new("other".to_owned())) };
        assert!(!KeyRef { text: "SELECT 1", keyspace: Some("app") }.equivalent(&other));
    }
}
