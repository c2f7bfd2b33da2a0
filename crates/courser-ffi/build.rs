//! Gives the shared library the name that programs ask the dynamic linker for. Below 1.0 each minor version is an
//! incompatible one, so the name has both numbers.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let of = |name: &str| std::env::var(name).unwrap_or_default();
    if of("CARGO_CFG_TARGET_OS") == "linux" {
        let (major, minor) = (of("CARGO_PKG_VERSION_MAJOR"), of("CARGO_PKG_VERSION_MINOR"));
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcourserstack.so.{major}.{minor}");
    }
}
