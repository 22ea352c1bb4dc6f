#![no_main]

use std::{path::Path, sync::LazyLock};

use oracles::{KEYS, token::Forge};

static FORGE: LazyLock<Forge> = LazyLock::new(|| Forge::new(Path::new(KEYS)));

libfuzzer_sys::fuzz_target!(|input: &[u8]| FORGE.check(input));
