//! The header is what the functions are: `COURSER_BLESS=1 cargo test -p courser-ffi --test header` writes it again.

use std::path::Path;

/// The source with `export!` written out, and pointers for the types that stand for them.
fn write_out(source: &str) -> String {
    let Some((head, functions)) = source.split_once("export! {\n") else { return source.to_owned() };
    let functions = functions.trim_end().strip_suffix('}').expect("the macro's brace is the last");
    let functions = functions.replace("\n    fn ", "\n    #[unsafe(no_mangle)]\n    pub extern \"C\" fn ");
    let pointers = [
        (": Bytes", ": *const u8"),
        (": Room<u8>", ": *mut u8"),
        (": Room<courser_event>", ": *mut courser_event"),
        (": Text", ": *const c_char"),
        (": Given", ": *mut courser_stack"),
        (" -> ()", ""),
    ];
    let plain = pointers.iter().fold(functions, |text, (stands, pointer)| text.replace(stands, pointer));
    format!("{head}{plain}")
}

#[test]
fn the_header_declares_what_the_library_has() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(here.join("cbindgen.toml")).expect("the configuration is read");
    let mut made = Vec::new();
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let sources = ["codes.rs", "calls.rs", "edge.rs"].map(|name| {
        let source = std::fs::read_to_string(here.join("src").join(name)).expect("the source is read");
        let written_out = folder.path().join(name);
        std::fs::write(&written_out, write_out(&source)).expect("it is written");
        written_out
    });
    let builder = cbindgen::Builder::new().with_config(config);
    let builder = sources.iter().fold(builder, |builder, source| builder.with_src(source));
    builder.generate().expect("the functions can be declared").write(&mut made);
    let (made, path) = (String::from_utf8(made).expect("the header is text"), here.join("include/courser.h"));
    if std::env::var_os("COURSER_BLESS").is_some() {
        std::fs::write(&path, &made).expect("the header is written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(made == committed, "include/courser.h is not what the functions are; run the test with COURSER_BLESS=1");
    let functions = made.matches("\n/**").count();
    assert!(functions > 40 && made.contains("courser_open"), "{functions} comments");
}
