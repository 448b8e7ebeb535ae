"""The figures of part I: models of sequences."""

from diagram import Diagram


def rnn_cells() -> Diagram:
    d = Diagram(760, 640, "Three recurrent cells", "A plain recurrent cell, an LSTM cell and a GRU cell.")
    d.text(20, 26, "plain RNN", 17, "start", "600")
    d.box(300, 50, 130, 50, "W, tanh", "learned")
    d.box(20, 55, 90, 40, "h, before", "data")
    d.box(320, 130, 90, 40, "input x", "data")
    d.box(650, 55, 90, 40, "h, after", "data")
    d.arrow((110, 75), (300, 75))
    d.arrow((365, 130), (365, 100))
    d.arrow((430, 75), (650, 75))
    d.text(20, 204, "LSTM", 17, "start", "600")
    d.box(20, 225, 90, 40, "c, before", "data")
    d.box(20, 355, 90, 40, "h, before", "data")
    d.box(650, 225, 90, 40, "c, after", "data")
    d.box(650, 355, 90, 40, "h, after", "data")
    for x, words in ((150, "forget σ"), (270, "input σ"), (390, "new tanh"), (510, "output σ")):
        d.box(x, 345, 100, 60, words, "learned")
    d.arrow((110, 375), (150, 375))
    d.text(300, 425, "all four read h and x", 14)
    d.dot(200, 245, "×")
    d.dot(330, 285, "×")
    d.dot(440, 245, "+")
    d.dot(560, 316, "×")
    d.box(535, 266, 50, 24, "tanh", "fixed", 13)
    d.arrow((110, 245), (187, 245))
    d.arrow((213, 245), (427, 245))
    d.arrow((453, 245), (650, 245))
    d.arrow((560, 245), (560, 266))
    d.arrow((200, 345), (200, 258))
    d.arrow((320, 345), (325, 298))
    d.arrow((430, 345), (430, 320), (350, 290))
    d.arrow((343, 283), (430, 255))
    d.arrow((560, 290), (560, 303))
    d.arrow((560, 345), (560, 329))
    d.arrow((573, 316), (630, 316), (630, 375), (650, 375))
    d.text(20, 464, "GRU", 17, "start", "600")
    d.box(20, 485, 90, 40, "h, before", "data")
    d.box(650, 485, 90, 40, "h, after", "data")
    for x, words in ((150, "reset σ"), (290, "new tanh"), (470, "update z, σ")):
        d.box(x, 570, 110, 50, words, "learned")
    d.dot(345, 535, "×")
    d.dot(525, 505, "+")
    d.arrow((110, 505), (512, 505))
    d.arrow((345, 570), (345, 548))
    d.arrow((358, 533), (513, 511))
    d.arrow((260, 595), (290, 595))
    d.arrow((525, 570), (525, 518))
    d.arrow((538, 505), (650, 505))
    d.text(440, 488, "z · old", 14)
    d.text(425, 545, "(1 − z) · new", 14)
    return d


def attention() -> Diagram:
    d = Diagram(760, 300, "Attention", "Queries meet keys; a softmax makes weights; the weights mix the values.")
    for y, words in ((30, "queries Q"), (120, "keys K"), (220, "values V")):
        d.box(20, y, 110, 46, words, "data")
    d.box(190, 70, 130, 50, "Q Kᵀ / √E", "fixed")
    d.box(370, 70, 110, 50, "softmax", "fixed")
    d.box(540, 130, 90, 50, "mix", "fixed")
    d.box(665, 130, 80, 50, "answer", "data")
    d.arrow((130, 53), (190, 85))
    d.arrow((130, 143), (190, 105))
    d.arrow((320, 95), (370, 95))
    d.arrow((480, 95), (585, 95), (585, 130))
    d.arrow((130, 243), (585, 243), (585, 180))
    d.arrow((630, 155), (665, 155))
    d.text(425, 140, "each row adds to one", 14)
    d.text(420, 275, "several heads do this side by side, each in its own part of the width", 14)
    return d


def transformer() -> Diagram:
    d = Diagram(760, 520, "The Transformer", "Encoder and decoder; the decoder looks at itself and at the encoder.")
    for x, name, parts in (
        (60, "encoder, L times", ["self-attention", "MLP"]),
        (440, "decoder, L times", ["masked self-attention", "cross-attention", "MLP"]),
    ):
        top = 400 - 90 * len(parts)
        height = 90 * len(parts) + 10
        d.parts.append(
            f'<rect x="{x - 20}" y="{top}" width="300" height="{height}" rx="10" fill="none" stroke="#999"/>'
        )
        d.text(x + 278, top - 14, name, 15, "end", "600")
        for k, words in enumerate(parts):
            y = 340 - 90 * k
            d.box(x + 10, y, 200, 44, words, "learned")
            d.dot(x + 110, y - 16, "+", 11)
            d.arrow((x + 110, y + 62), (x + 245, y + 62), (x + 245, y - 16), (x + 121, y - 16))
            d.arrow((x + 110, y + 74 if k else 440), (x + 110, y + 44))
    d.box(70, 440, 200, 50, "source words\n+ positions", "data", 14)
    d.box(450, 440, 200, 50, "words written so far\n+ positions", "data", 14)
    d.box(450, 20, 200, 44, "next word", "data")
    d.arrow((550, 133), (550, 64))
    d.arrow((170, 233), (170, 160), (395, 160), (395, 272), (450, 272))
    d.text(285, 146, "what was read", 14)
    d.text(380, 508, "a norm stands before each sublayer; the lines on the right of each are residual connections", 14)
    return d


def bert() -> Diagram:
    d = Diagram(760, 400, "BERT", "Two sentences with masked words go through an encoder; the masked words come out.")
    words = ["[CLS]", "a", "[MASK]", "is", "mutable", "[SEP]", "a", "tuple", "[MASK]", "[SEP]"]
    for k, word in enumerate(words):
        x = 20 + 72 * k
        d.box(x, 330, 68, 34, word, "data", 13)
        d.arrow((x + 34, 330), (x + 34, 300))
        d.arrow((x + 34, 262), (x + 34, 220))
        if word in ("[CLS]", "[MASK]"):
            d.arrow((x + 34, 160), (x + 34, 114))
    d.box(20, 262, 716, 38, "word + place + segment, norm", "learned", 14)
    d.box(20, 160, 716, 60, "encoder, L times: self-attention both ways, MLP", "learned")
    d.box(20, 68, 120, 46, "pooler, linear", "learned", 13)
    d.box(146, 68, 104, 46, "word head", "learned", 13)
    d.box(578, 68, 104, 46, "word head", "learned", 13)
    for x, words_out in ((80, "does it follow?"), (198, "list"), (630, "is")):
        d.arrow((x, 68), (x, 44))
        d.text(x, 28, words_out, 15)
    d.text(400, 91, "no loss at the other places", 14)
    d.text(200, 386, "first sentence: segment 0", 14)
    d.text(590, 386, "second sentence: segment 1", 14)
    return d


def gpt() -> Diagram:
    d = Diagram(760, 250, "GPT", "Tokens and positions, masked blocks, a norm, and the embeddings again as the output.")
    d.box(15, 90, 100, 50, "tokens", "data")
    d.box(150, 90, 110, 50, "embeddings", "learned", 14)
    d.box(150, 180, 110, 36, "positions", "learned", 14)
    d.dot(295, 115, "+")
    d.parts.append('<rect x="330" y="45" width="200" height="130" rx="10" fill="none" stroke="#999"/>')
    d.text(528, 34, "L times", 15, "end", "600")
    d.box(345, 60, 170, 40, "masked self-attention", "learned", 14)
    d.box(345, 122, 170, 40, "MLP", "learned", 14)
    d.box(560, 97, 60, 36, "norm", "learned", 14)
    d.box(650, 90, 100, 50, "next token", "data", 14)
    d.arrow((115, 115), (150, 115))
    d.arrow((260, 115), (282, 115))
    d.arrow((260, 198), (295, 198), (295, 128))
    d.arrow((308, 115), (330, 115))
    d.arrow((530, 115), (560, 115))
    d.arrow((620, 115), (650, 115))
    d.arrow((205, 90), (205, 14), (700, 14), (700, 90))
    d.text(395, 232, "the same embeddings compare what leaves the norm with every token", 14)
    return d


FIGURES = {"rnn-cells": rnn_cells, "attention": attention, "transformer": transformer, "bert": bert, "gpt": gpt}
