//! bollard keeps its decoder to itself. So the file it is in, as published and fetched by cargo, is compiled as a module
//! of this program: BOLLARD_SOURCE names the directory (`cargo metadata` knows it).
use std::{env, fs, path::Path};

fn main() {
    println!("cargo:rerun-if-env-changed=BOLLARD_SOURCE");
    let source = env::var("BOLLARD_SOURCE").expect("BOLLARD_SOURCE is not set");
    let read = Path::new(&source).join("src").join("read.rs");
    assert!(read.exists(), "{} does not exist", read.display());
    let module = format!("#[path = {:?}]\n#[allow(warnings)]\nmod read;\n", read);
    fs::write(Path::new(&env::var("OUT_DIR").unwrap()).join("read_module.rs"), module).unwrap();
}
