"""Notations that models answer in, drawn again as pictures: offline, by the packages of the extra ``render``.

A model's answer is a stranger's text: nothing in it becomes a script, a file or an address that is loaded.
"""
