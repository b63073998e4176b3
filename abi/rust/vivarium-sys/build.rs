//! Finds libvivarium: VIVARIUM_LIB_DIR, else what pkg-config says, else the linker's own places.

use std::{env, process::Command};

fn main() {
    println!("cargo:rerun-if-env-changed=VIVARIUM_LIB_DIR");
    println!("cargo:rustc-link-lib=dylib=vivarium");
    if let Ok(folder) = env::var("VIVARIUM_LIB_DIR") {
        println!("cargo:rustc-link-search=native={}", folder);
        return;
    }
    let found = Command::new("pkg-config").args(["--variable=libdir", "vivarium"]).output();
    if let Ok(output) = found {
        let folder = String::from_utf8_lossy(&output.stdout).trim().to_string();
        if output.status.success() && !folder.is_empty() {
            println!("cargo:rustc-link-search=native={}", folder);
        }
    }
}
