"""Weights in other people's layouts: names are facts about files; none of their code is used."""
