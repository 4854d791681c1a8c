// SPDX-License-Identifier: MIT OR Apache-2.0

//! Enumerations of the wire that keep values nobody has named.

/// Declares an open enumeration: a transparent newtype with a constant for each known value.
///
/// A guest may send any number where the protocol lists a few. A Rust `enum` could not hold it, so
/// each wire enumeration is a newtype whose unknown values survive parsing, comparison and
/// printing (`Name(0x2a)`).
macro_rules! open_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident : $repr:ty {
            $( $(#[$vmeta:meta])* $variant:ident = $value:expr, )*
        }
    ) => {
        $(#[$meta])*
        #[repr(transparent)]
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
        )]
        pub struct $name(pub $repr);

        impl $name {
            $( $(#[$vmeta])* pub const $variant: Self = Self($value); )*

            /// Every value that has a name, in the order of declaration.
            pub const KNOWN: &'static [Self] = &[$(Self::$variant),*];

            /// The constant's name, or `None` for a value that has none.
            pub const fn name(self) -> Option<&'static str> {
                $( if self.0 == Self::$variant.0 { return Some(stringify!($variant)); } )*
                None
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => f.pad(name),
                    None => write!(f, concat!(stringify!($name), "({:#x})"), self.0),
                }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Debug::fmt(self, f)
            }
        }
    };
}

pub(crate) use open_enum;

#[cfg(test)]
mod tests {
    open_enum! {
        /// A sample.
        pub enum Colour: u8 {
            /// One.
            RED = 1,
            /// Two.
            GREEN = 2,
        }
    }

    #[test]
    fn known_values_print_their_name_and_unknown_ones_their_number() {
        assert_eq!(Colour::GREEN.to_string(), "GREEN");
        assert_eq!(Colour(0x2a).to_string(), "Colour(0x2a)");
        assert_eq!(Colour::KNOWN, [Colour(1), Colour(2)]);
        assert_eq!(Colour(3).name(), None);
    }
}
