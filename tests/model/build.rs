//! Takes src/cache/fence.rs and src/cache/store.rs as they are, and once more for each planted mistake with that mistake.
//! Each piece of text that is replaced must be there exactly once, so that none can go stale unnoticed.

use std::path::Path;

/// The real table is as large as it is to keep bystanders apart; the model knows its names, and they do not meet.
const SMALL: (&str, &str) = ("const SLOTS: usize = 65_536;", "const SLOTS: usize = 64;");

struct Mistake {
    name: &'static str,
    file: &'static str,
    replace: &'static [(&'static str, &'static str)],
}

const MISTAKES: &[Mistake] = &[
    Mistake { name: "as_is", file: "fence", replace: &[] },
    Mistake {
        name: "bump_only_before",
        file: "fence",
        replace: &[("            fence.generation.store(self.fences.fresh(), SeqCst);\n", "")],
    },
    Mistake {
        name: "bump_only_after",
        file: "fence",
        replace: &[(
            "            fence.in_flight.fetch_add(1, SeqCst);\n            fence.generation.store(self.fresh(), SeqCst);\n",
            "            fence.in_flight.fetch_add(1, SeqCst);\n",
        )],
    },
    Mistake {
        name: "settle_judged_on_arrival",
        file: "fence",
        replace: &[
            ("        stamp.settled &= stamp.settling == 0;\n", ""),
            (
                "self.touched(&stamp.read).all(|fence| fence.in_flight.load(SeqCst) == 0)",
                "self.touched(&stamp.read).all(|fence| {
                    let settled_at = fence.done_at.load(SeqCst).max(fence.settled_at.load(SeqCst));
                    fence.in_flight.load(SeqCst) == 0 && u64::from(settled_at) <= self.now()
                })",
            ),
        ],
    },
    Mistake {
        name: "flight_across_the_end_of_settling",
        file: "fence",
        replace: &[("token(self.settling.into())", "0")],
    },
    Mistake {
        name: "flight_across_the_end_of_one_of_two",
        file: "fence",
        replace: &[("token(self.settling.into())", "token((self.settling > 0).into())")],
    },
    Mistake {
        name: "settle_forgotten",
        file: "fence",
        replace: &[("let settled_at = after(self.settle.lag);", "let settled_at: Option<u32> = None;")],
    },
    Mistake {
        name: "compare_forgotten_on_hits",
        file: "store",
        replace: &[("self.fences.current(&under.own)\n            && ", "")],
    },
];

fn main() {
    let cache = Path::new("../../src/cache");
    let out = std::env::var("OUT_DIR").unwrap();
    for Mistake { name, file: planted, replace } in MISTAKES {
        let folder = Path::new(&out).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for file in ["fence", "store"] {
            let path = cache.join(format!("{file}.rs"));
            println!("cargo::rerun-if-changed={}", path.display());
            let mut text = std::fs::read_to_string(&path).unwrap();
            let mut put = |from: &str, to: &str| {
                assert_eq!(text.matches(from).count(), 1, "{name}: not once in {file}.rs: {from}");
                text = text.replace(from, to);
            };
            if file == "fence" {
                put(SMALL.0, SMALL.1);
                put("#[cfg(test)]\nmod tests;\n", "");
            }
            if file == *planted {
                replace.iter().for_each(|(from, to)| put(from, to));
            }
            // What is included cannot document the module it is included into.
            let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("//!")).collect();
            std::fs::write(folder.join(format!("{file}.rs")), text.join("\n")).unwrap();
        }
    }
}
