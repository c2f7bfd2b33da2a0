//! Values that take memory only while they are in use.
//!
//! Most connections are idle most of the time, and most of their parts are never used. A [`Lazy`] of such a part is one
//! pointer. Reading it shows the value that an unused part has; changing it makes the part; [`Lazy::rest`] gives the memory
//! back once the part is as good as unused again.

use core::ops::{Deref, DerefMut};

/// A part that is worth nothing while nothing happened to it.
pub trait Part: Sized + 'static {
    /// The part as it begins.
    const UNUSED: &'static Self;

    /// A new part.
    fn begin() -> Self;

    /// Whether it differs from a new one in nothing but the room that it keeps.
    fn is_unused(&self) -> bool;
}

/// A part in memory of its own, once there is something to remember.
pub struct Lazy<T>(Option<Box<T>>);

impl<T: Part> Lazy<T> {
    /// A part that is not in use.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }

    /// Gives the memory back if the part is not in use.
    pub fn rest(&mut self) {
        if self.0.as_deref().is_some_and(T::is_unused) {
            self.0 = None;
        }
    }

    /// The part, if it has memory of its own.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    /// Whether the part has memory of its own.
    #[must_use]
    pub const fn is_made(&self) -> bool {
        self.0.is_some()
    }
}

impl<T: Part> Default for Lazy<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Seldom needed: it shall not stand in the way of those who only use the part.
#[cold]
fn make<T: Part>() -> Box<T> {
    Box::new(T::begin())
}

impl<T: Part> Deref for Lazy<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::UNUSED)
    }
}

impl<T: Part> DerefMut for Lazy<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_with(make)
    }
}

impl<T: Part + Clone> Clone for Lazy<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Part + core::fmt::Debug> core::fmt::Debug for Lazy<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Numbers {
        all: Vec<u8>,
    }

    impl Part for Numbers {
        const UNUSED: &'static Self = &Self { all: Vec::new() };

        fn begin() -> Self {
            Self { all: Vec::with_capacity(8) }
        }

        fn is_unused(&self) -> bool {
            self.all.is_empty()
        }
    }

    #[test]
    fn a_part_is_made_when_it_is_changed_and_goes_when_nothing_is_left() {
        let mut lazy = Lazy::<Numbers>::default();
        assert!(lazy.all.is_empty() && !lazy.is_made(), "reading makes nothing");
        lazy.all.push(7);
        lazy.rest();
        assert_eq!((&lazy.all[..], lazy.is_made()), (&[7][..], true), "what is in use stays");
        lazy.all.clear();
        assert!(lazy.is_made());
        lazy.rest();
        assert!(lazy.all.is_empty() && !lazy.is_made());
    }
}
