//! What crosses the border to C: all unsafe code of the library.
//!
//! The types stand for a caller's pointers as arguments. Only a caller in C can make them, and it keeps to what C always asks
//! for: a pointer with a length points to so many bytes that nobody else changes during the call, a text ends with a zero, a
//! stack is used no more after it was shut. Null pointers are nothing. What is borrowed from them ends with the call.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::slice;

use crate::calls::courser_stack;
use crate::codes::Failure;

/// Whether a pointer with a length can be one: a length behind a null pointer is a mistake, and so is one that no object has.
fn sound<T>(null: bool, len: usize) -> Result<(), Failure> {
    match len.checked_mul(size_of::<T>()) {
        _ if null => Err(Failure::argument("a buffer with a length is a null pointer")),
        Some(bytes) if isize::try_from(bytes).is_ok() => Ok(()),
        _ => Err(Failure::argument("a length is longer than anything in memory")),
    }
}

/// Bytes of a caller.
#[repr(transparent)]
pub struct Bytes(*const u8);

impl Bytes {
    pub(crate) fn get(&self, len: usize) -> Result<&[u8], Failure> {
        if len == 0 {
            return Ok(&[]);
        }
        sound::<u8>(self.0.is_null(), len)?;
        // SAFETY: the caller's pointer points to so many bytes, see above; it is not null, and no object is longer.
        Ok(unsafe { slice::from_raw_parts(self.0, len) })
    }
}

/// A caller's room for values, which are plain numbers: every content of it is one.
#[repr(transparent)]
pub struct Room<T>(*mut T);

impl<T: Copy> Room<T> {
    /// The room, which is taken once and used within the call.
    pub(crate) fn get<'a>(self, len: usize) -> Result<&'a mut [T], Failure> {
        if len == 0 {
            return Ok(&mut []);
        }
        sound::<T>(self.0.is_null(), len)?;
        // SAFETY: the caller's pointer points to room for so many values, see above; it is not null, and no object is longer.
        Ok(unsafe { slice::from_raw_parts_mut(self.0, len) })
    }
}

/// A text of a caller.
#[repr(transparent)]
pub struct Text(*const c_char);

impl Text {
    pub(crate) fn get(&self) -> Result<Option<&str>, Failure> {
        if self.0.is_null() {
            return Ok(None);
        }
        // SAFETY: the caller's text ends with a zero, see above.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map(Some).map_err(|_| Failure::argument("a text is not UTF-8"))
    }

    pub(crate) fn need(&self) -> Result<&str, Failure> {
        self.get()?.ok_or_else(|| Failure::argument("a text is a null pointer"))
    }
}

/// A stack that its caller gives back.
#[repr(transparent)]
pub struct Given(*mut courser_stack);

impl Given {
    pub(crate) fn take(self) -> Option<Box<courser_stack>> {
        // SAFETY: the pointer came from `courser_open`, which made it of a box, and is used no more.
        (!self.0.is_null()).then(|| unsafe { Box::from_raw(self.0) })
    }
}

/// Gives functions the names and the manner that a linker and C know.
macro_rules! export {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $answer:ty $body:block)*) => {
        $($(#[$doc])* #[allow(unsafe_code)] #[unsafe(no_mangle)] pub extern "C" fn $name($($arg: $type),*) -> $answer $body)*
    };
}
