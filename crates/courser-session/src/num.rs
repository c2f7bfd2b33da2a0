//! Integer conversions that cannot fail, kept in one place so that no other module needs a cast.

// Slot numbers are 32 bits wide; a platform with smaller addresses could not hold the tables.
const _: () = assert!(usize::BITS >= 32 && usize::BITS <= 64);

/// A 32-bit number as a length or position in memory.
pub(crate) const fn widen(n: u32) -> usize {
    n as usize
}

/// A length as a 64-bit number.
pub(crate) const fn wide(n: usize) -> u64 {
    n as u64
}

/// A length as a 32-bit number, the largest one when it does not fit.
pub(crate) const fn clamp(n: usize) -> u32 {
    if n > widen(u32::MAX) { u32::MAX } else { n as u32 }
}

/// The low 32 bits.
pub(crate) const fn low(n: u64) -> u32 {
    (n & 0xffff_ffff) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_keep_what_fits() {
        assert_eq!(widen(u32::MAX), 4_294_967_295);
        assert_eq!(wide(7), 7);
        assert_eq!(clamp(widen(u32::MAX)), u32::MAX);
        assert_eq!(clamp(usize::MAX), u32::MAX);
        assert_eq!(low(0x1_0000_0002), 2);
    }
}
