//! The C library: what `include/courser.h` declares.
//!
//! The same header serves two libraries. Built as it is, the library attaches to a service in another process and has no
//! QUIC and no TLS inside; built with the feature `engine`, [`edge::courser_open`] without a path hosts everything in the
//! calling process. All other calls are the same.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`edge`] | the functions, each a line |
//! | [`raw`] | what a caller's pointers stand for: all unsafe code |
//! | [`codes`] | errors and other constants, and the sentence of a thread's last error |
//! | [`calls`] | what the functions do, in safe code |
//!
//! Invariants: no panic leaves a function (a caught one is [`codes::courser_error::COURSER_INTERNAL`]); no pointer is kept
//! after a call, except the stack's own; a null pointer is an error, or stands for nothing where the header says so.
#![cfg(unix)]
#![deny(unsafe_code)]
// The names of C are those of its tradition.
#![allow(non_camel_case_types)]

#[macro_use]
pub mod raw;

pub mod calls;
pub mod codes;
pub mod edge;
