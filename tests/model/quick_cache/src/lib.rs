//! As much of quick_cache as src/cache/store.rs uses: each call one step, as there, and evictions whenever it likes.

/// What an entry weighs.
pub trait Weighter<K, V> {
    /// In bytes.
    fn weight(&self, key: &K, value: &V) -> u64;
}

pub mod sync {
    use std::collections::HashMap;
    use std::hash::Hash;

    use shuttle::rand::{Rng as _, thread_rng};
    use shuttle::sync::Mutex;

    /// A map that forgets.
    #[derive(Debug)]
    pub struct Cache<K, V, W> {
        entries: Mutex<HashMap<K, V>>,
        weighter: W,
    }

    impl<K: Eq + Hash + Copy, V: Clone, W: super::Weighter<K, V>> Cache<K, V, W> {
        pub fn with_weighter(_items: usize, _bytes: u64, weighter: W) -> Self {
            Self { entries: Mutex::new(HashMap::new()), weighter }
        }

        pub fn get(&self, key: &K) -> Option<V> {
            self.entries.lock().unwrap().get(key).cloned()
        }

        pub fn peek(&self, key: &K) -> Option<V> {
            self.get(key)
        }

        pub fn insert(&self, key: K, value: V) {
            let mut entries = self.entries.lock().unwrap();
            if thread_rng().gen_range(0..8) == 0 {
                entries.clear();
            }
            if thread_rng().gen_range(0..8) != 0 {
                entries.insert(key, value);
            }
        }

        pub fn remove_if(&self, key: &K, condition: impl FnOnce(&V) -> bool) {
            let mut entries = self.entries.lock().unwrap();
            if entries.get(key).is_some_and(condition) {
                entries.remove(key);
            }
        }

        pub fn retain(&self, condition: impl Fn(&K, &V) -> bool) {
            self.entries.lock().unwrap().retain(|key, value| condition(key, value));
        }

        pub fn len(&self) -> usize {
            self.entries.lock().unwrap().len()
        }

        pub fn weight(&self) -> u64 {
            let entries = self.entries.lock().unwrap();
            entries.iter().map(|(key, value)| self.weighter.weight(key, value)).sum()
        }
    }
}
