package qemutest

// Sequences are texts by which a guest may try to take over the terminal that
// shows them, or to show something that is not so: 60 and more.
func Sequences() []string {
	return []string{
		"\x1b]52;c;aGFja2Vk\x07", "\x1b]52;p;aGFja2Vk\x1b\\", // clipboard
		"\x1b]0;title\x07", "\x1b]2;title\x1b\\", "\x1b]1;icon\x07", "\x1bktitle\x1b\\", "\x1b]l title\x1b\\", // titles
		"\x1b[21t", "\x1b[20t", "\x1b[11t", "\x1b[8;1;1t", // reports and sizes of the window
		"\x1b[6n", "\x1b[5n", "\x1b[c", "\x1b[>c", "\x1b[=c", "\x1bZ", "\x05", // answers, as if typed
		"\x1bP$q\"p\x1b\\", "\x1bP+q544e\x1b\\", "\x1bPq#0;2;0;0;0\x1b\\", // DCS: settings, terminfo, sixel
		"\x1b]8;;http://evil.example/\x1b\\click\x1b]8;;\x1b\\", "\x1b]9;note\x07", "\x1b]777;notify;a;b\x07", // links, notifications
		"\x1b]4;0;#ffffff\x07", "\x1b]10;?\x07", "\x1b]11;#000000\x07", "\x1b]50;font\x07", // colours, fonts
		"\x1b]1337;File=inline=1:AA==\x07", "\x1b_Gf=24;AA==\x1b\\", "\x1b^private\x1b\\", "\x1bXstring\x1b\\", // images, PM, SOS
		"\x1b[2J", "\x1b[3J", "\x1b[H", "\x1b[1A\x1b[2K", "\x1b[1;1r", "\x1b[?1049h", "\x1b[?25l", "\x1b[4h", // erasing, moving
		"\x1bc", "\x1b#8", "\x1b[!p", "\x1b(0", "\x1b)B", "\x0e", "\x0f", "\x1b[?2004l", "\x1b[?1000h", // modes, character sets
		"\x1b[8mhidden\x1b[0m", "\x1b[31;1mred", "\x1b[5i", "\x1b[0i", "\x1b[?1003h", // text that is not seen, the printer, the mouse
		"forged\rweb-9  ready", "back\b\b\b\bover", "\x07", "\x7f\x7f", "\x0b", "\x0c", "\x00", "\x1a", "\x18", // C0 and DEL
		"\u009b2J", "\u009d0;t\u009c", "\u0090q\u009c", "\u0085line", "\u008d", // C1 as UTF-8
		"\x9b2J", "\x9d0;t\x9c", "\x90q\x9c", "\x84", "\xff\xfe", "\xc3", "\xe2\x80", // C1 as bytes, stray bytes
		"a\u202eb", "a\u202db\u202c", "a\u2066b\u2069", "\u200e\u200f", "\u061c", "\u2067x", // bidirectional
		"z\u200bw", "\u200d", "\ufeff", "\u00ad", "\u2060", "\u180e", "\u2028", "\u2029", "\U000e0041\U000e007f", // invisible, line ends
	}
}
